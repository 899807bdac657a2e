-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local Item = regolith.entity("item", {
  field.string "name" { unique = true }, field.string "secret" { sensitive = true, nullable = true },
  cache = { process = true, redis = true },
})

describe("log", function()
  local world, orm, db, events

  setup(function()
    world = support.world()
    orm = world:open { Item }
  end)
  teardown(function() world:close() end)

  before_each(function()
    events = {}
    db = orm:session()
  end)
  after_each(function()
    orm:log(nil)
    db:close()
  end)

  local function note(event) events[#events + 1] = event end

  --- Events of a source, and whether one of them has a text.
  local function of(source, pattern)
    local n, found = 0, false
    for _, event in ipairs(events) do
      if event.source == source then
        n = n + 1
        found = found or (pattern and event.text:find(pattern, 1, true) ~= nil)
      end
    end
    return n, found
  end

  it("tells of statements, with time and rows", function()
    orm:log(note, { mysql = true })
    local before = os.time()
    must(db:query("SELECT id FROM item WHERE name = ?", "nobody"))
    assert.equal(1, #events)
    local event = events[1]
    assert.equal("mysql", event.source)
    assert.equal("default", event.pool)
    assert.matches("SELECT id FROM item", event.text)
    assert.is_true(math.abs(event.started - before) < 5)
    assert.is_true(event.duration >= 0 and event.duration < 5)
    assert.is_nil(event.error)
  end)

  it("hides values unless they are asked for, sensitive ones always", function()
    orm:log(note, { mysql = true })
    db:new(Item, { name = "visible", secret = "hush" })
    must(db:flush())
    local _, found = of("mysql", "visible")
    assert.is_false(found)
    events = {}
    orm:log(note, { mysql = true, redis = true, values = true })
    db:new(Item, { name = "visible2", secret = "hush" })
    db:new(Item, { name = "visible3", secret = "hush" })
    must(db:flush())
    assert.is_true(#events > 0)
    assert.is_false(select(2, of("mysql", "hush")))
    assert.is_false(select(2, of("redis", "hush")))
  end)

  it("tells of Redis and of the process cache", function()
    local id = db:new(Item, { name = "cached" }).id
    must(db:flush())
    support.eventually(function()
      orm:session():get(Item, id)
      return orm:stats().coherent
    end)
    orm:log(note, { redis = true, process = true })
    must(support.eventually(function()
      orm:session():get(Item, id)
      return of("process") > 0
    end))
    assert.equal(0, of("mysql"))
    events = {}
    must(orm:session():by(Item, "name", "cached"))
    assert.is_true(#events > 0)
  end)

  it("tells of errors", function()
    orm:log(note)
    db:query "SELECT nothing FROM item"
    assert.is_string(events[1].error)
  end)

  it("leaves an operation as it is when its handler raises", function()
    local told = {}
    local own = world:open({ Item }, { schema = false, on_error = function(err) told[#told + 1] = err end })
    local session = own:session()
    own:log(function() error "no room" end, { mysql = true, redis = true, process = true })
    local item = session:new(Item, { name = "kept" })
    must(session:flush())
    item.name = "kept still"
    must(session:flush())
    local seen = 0
    own:log(function()
      seen = seen + 1
      own:log(nil)
    end)
    item.name = "kept to the end"
    must(session:flush())
    assert.equal(1, seen)
    assert.equal("kept to the end", must(db:query("SELECT name FROM item WHERE id = ?", item.id))[1].name)
    assert.is_true(#told > 1)
    assert.same({ "HOOK", "log" }, { told[1].code, told[1].hook })
    assert.matches("log: .*no room", told[1].message)
    session:close()
    world:shut(own)
  end)

  it("ends", function()
    orm:log(note)
    orm:log(nil)
    must(db:query "SELECT 1")
    assert.same({}, events)
  end)

  it("can be set when opening", function()
    local seen = 0
    local own = world:open({ Item }, {
      schema = false, log = { mysql = true, handler = function() seen = seen + 1 end },
    })
    local session = own:session()
    must(session:query "SELECT 1")
    assert.equal(1, seen)
    session:close()
    world:shut(own)
  end)

  it("checks its arguments", function()
    assert.matches("log takes a function", select(2, pcall(orm.log, orm, 5)))
    assert.matches("unknown option 'mysq'", select(2, pcall(orm.log, orm, note, { mysq = true })))
  end)
end)

describe("metrics", function()
  it("are Prometheus text, and counters by name", function()
    local world = support.world()
    local orm = world:open { Item }
    local db = orm:session()
    local before = orm:counter "regolith_mysql_queries_total"
    must(db:query "SELECT 1")
    assert.equal(before + 1, orm:counter "regolith_mysql_queries_total")
    assert.is_nil(orm:counter "nothing")
    local text = orm:metrics()
    assert.matches("# TYPE regolith_mysql_queries_total counter\n", text)
    assert.matches("\nregolith_mysql_queries_total %d+", text)
    assert.matches("regolith_mysql_seconds_bucket{.*le=\"%+Inf\"", text)
    local stats = orm:stats()
    assert.is_number(stats.cache_bytes)
    assert.is_number(stats.cache_entries)
    assert.is_boolean(stats.coherent)
    local pools = must(orm:health())
    assert.is_true(pools[1].ok and pools[2].ok)
    db:close()
    world:close()
  end)

  it("count a row once that was read from each tier", function()
    local world = support.world()
    local orm = world:open { Item }
    local db, ids, events, names = orm:session(), {}, 0, 0
    local function add_rows()
      for i = 1, 10 do
        names = names + 1
        ids[i] = must(db:new(Item, { name = "n" .. names })).id
      end
      must(db:flush())
    end
    add_rows()
    must(support.eventually(function()
      orm:session():get(Item, ids[10])
      return orm:stats().coherent
    end))
    --- Its misses and hits in the process cache, and those of its log.
    local function counted(fn)
      local missed = orm:counter "regolith_process_cache_misses_total"
      local hit = orm:counter "regolith_process_cache_hits_total"
      events = 0
      orm:log(function() events = events + 1 end, { process = true })
      local own = orm:session()
      fn(own)
      own:close()
      orm:log(nil)
      return { orm:counter "regolith_process_cache_misses_total" - missed,
        orm:counter "regolith_process_cache_hits_total" - hit, events }
    end
    local function one(own) for i = 1, 3 do must(own:get(Item, ids[i])) end end
    local function many(own) must(own:get_many(Item, { ids[4], ids[5], ids[6], ids[7] })) end
    support.in_peace({ orm }, function()
      return { counted(one), counted(one), counted(many), counted(many) }
    end, function(counts)
      assert.same({ { 3, 0, 3 }, { 0, 3, 3 }, { 4, 0, 4 }, { 0, 4, 4 } }, counts)
    end, add_rows)
    db:close()
    world:close()
  end)
end)
