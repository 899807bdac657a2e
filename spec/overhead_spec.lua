-- SPDX-License-Identifier: MIT
-- What the cache protocol costs, counted: commands and statements, not time.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local function entity(name, cache, redis)
  return regolith.entity(name, {
    field.string "code" { unique = true }, field.uint32 "n", field.uint32 "shelf" { index = true, cached = true },
    cache = cache, redis = redis,
  })
end

describe("the cost of the cache", function()
  local world, orm, db
  local Cached, Both = entity("cached", { redis = true }), entity("both", true)
  local Other = entity("other", { redis = true }, "more")
  local rows = {}

  setup(function()
    world = support.world()
    orm = world:open({ Cached, Both, Other },
      { redis = { default = world.redis_url(), more = world.redis_url "?db=1" } })
    db = orm:session()
    for i = 1, 20 do rows[i] = db:new(Cached, { code = "c" .. i, n = i, shelf = i % 2 }) end
    must(db:flush())
  end)
  teardown(function()
    db:close()
    world:close()
  end)

  --- The Redis commands of fn, by name.
  local function commands(fn)
    local list = {}
    orm:log(function(event)
      if event.source == "redis" then list[#list + 1] = event.op end
    end, { redis = true })
    local ok, fault = pcall(fn)
    orm:log(nil)
    if not ok then error(fault, 0) end
    return list
  end

  --- Without the question that goes along with a read once a second, and once Redis has what it was late to keep.
  local function settled(fn)
    return faults.await("one command", function()
      local counts = support.count(orm, fn)
      local list = commands(fn)
      return #list == 1 and counts.mysql == 0 and list[1]
    end)
  end

  it("is one plain read for a hit, of one row, many or a list", function()
    local reader = orm:session()
    local ids = {}
    for i, row in ipairs(rows) do ids[i] = row.id end
    reader:get_many(Cached, ids)
    assert.equal("GET", (settled(function() orm:session():get(Cached, rows[1].id) end)))
    assert.equal("MGET", (settled(function() orm:session():get_many(Cached, ids) end)))
    reader:all_by(Cached, "shelf", 1)
    faults.await("two commands", function() -- the ids, then their rows
      return table.concat(commands(function() orm:session():all_by(Cached, "shelf", 1) end), " ") == "GET MGET"
    end)
    reader:close()
  end)

  it("is nothing for what the process has", function()
    local row = db:new(Both, { code = "b", n = 1 })
    must(db:flush())
    local counts
    support.eventually(function()
      counts = support.count(orm, function() orm:session():get(Both, row.id) end)
      return counts.redis + counts.mysql == 0
    end)
    assert.same({ 0, 0 }, { counts.redis, counts.mysql })
  end)

  it("is one awaited round trip a Redis pool for a flush, however many rows", function()
    local function flush_of(n, other)
      for i = 1, n do rows[i].n = rows[i].n + 1 end
      if other then other.n = other.n + 1 end
      return commands(function() must(db:flush()) end)
    end
    local other = db:new(Other, { code = "o", n = 1 })
    must(db:flush())
    flush_of(1, other) -- scripts are loaded
    local function is_of(wanted, n, more)
      faults.await(wanted, function() -- a new connection is asked whose it is
        local list = flush_of(n, more)
        table.sort(list)
        return table.concat(list, " ") == wanted
      end)
    end
    is_of("mark publish", 1)
    is_of("mark publish", 20)
    is_of("mark mark publish publish", 20, other)
  end)

  it("adds no statement to the transaction", function()
    rows[1].n = rows[1].n + 1
    local texts = support.count(orm, function() must(db:flush()) end).texts
    assert.equal(3, #texts, table.concat(texts, "\n"))
    assert.matches("^UPDATE", texts[2])
  end)
end)
