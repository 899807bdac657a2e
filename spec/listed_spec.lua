-- SPDX-License-Identifier: MIT
-- Enums and sets are what their words say, whatever numbers the table has for them: of a table that lists them in
-- another order, or knows more of them, every way of reading and writing tells the same.

local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local function words(prefix, n)
  local list = {}
  for i = 1, n do list[i] = prefix .. i end
  return list
end

local SIXTY_FOUR = words("m", 64)

--- A list of words as SQL.
local function listed(list, from, to, step)
  local out = {}
  for i = from, to, step do out[#out + 1] = "'" .. list[i]:gsub("'", "''") .. "'" end
  return table.concat(out, ",")
end

describe("listed values", function()
  local world, orm, Job

  local function entity(cache)
    return regolith.entity("job", {
      field.string "name" { unique = true },
      field.enum "state" { "new", "it's \\ ünderway", "2", "1", index = true },
      field.set "tags" { "red", "green", "it's \\ blue" },
      field.set "many" { unpack(SIXTY_FOUR) },
      field.enum "maybe" { "yes", "no", nullable = true },
      table = "old_jobs", cache = cache, ids = "application",
    })
  end

  local function stored(id)
    return must(world.sql:query("SELECT CONCAT_WS('|', state, tags, many, maybe) AS v FROM `" .. world.name
      .. "`.old_jobs WHERE id = ?", id))[1].v
  end

  setup(function()
    world = support.world()
    must(world.sql:connection(function(conn)
      return conn:execute("CREATE TABLE `" .. world.name .. "`.old_jobs (id BIGINT UNSIGNED PRIMARY KEY, "
        .. "name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL UNIQUE, "
        .. "state ENUM('1','gone','it''s \\\\ ünderway','new','2') CHARACTER SET utf8mb4 NOT NULL, "
        .. "tags SET('it''s \\\\ blue','black','green','red') CHARACTER SET utf8mb4 NOT NULL, "
        .. "many SET(" .. listed(SIXTY_FOUR, 64, 1, -1) .. ") CHARACTER SET utf8mb4 NOT NULL, "
        .. "maybe ENUM('no','yes') CHARACTER SET latin1, KEY by_state (state))")
    end))
  end)

  before_each(function()
    must(world.sql:query("DELETE FROM `" .. world.name .. "`.old_jobs"))
    Job = entity { redis = true, process = true }
    orm = world:open({ Job }, { schema = false })
  end)

  after_each(function() world:shut(orm) end)

  teardown(function() world:close() end)

  local function job(db, id, more)
    local values = {
      id = id, name = "job " .. id, state = "2", tags = { "red", "it's \\ blue" }, many = { "m1", "m64" }, maybe = "no",
    }
    for name, v in pairs(more or {}) do values[name] = v end
    return must(db:new(Job, values))
  end

  local AS_STORED = "2|it's \\ blue,red|m64,m1|no"

  local function check(e, more)
    more = more or {}
    assert.equal(more.state or "2", e.state)
    assert.same(more.tags or { "red", "it's \\ blue" }, e.tags)
    assert.same({ "m1", "m64" }, e.many)
    assert.equal(more.maybe or "no", e.maybe)
  end

  it("are written and read by one row and by many", function()
    local db = orm:session()
    job(db, 1)
    must(db:flush()) -- a prepared INSERT
    for i = 2, 40 do job(db, i) end
    must(db:flush()) -- literals
    for i = 1, 40 do assert.equal(AS_STORED, stored(i)) end
    local other = orm:session()
    local ids = {}
    for i = 1, 40 do ids[i] = i end
    for _, e in ipairs(must(other:search(Job, "id > 0 ORDER BY id"):all())) do check(e) end
    for _, e in ipairs(must(orm:session():get_many(Job, ids))) do check(e) end
    check(must(orm:session():by(Job, "name", "job 7")))
    must(other:transaction(function() check(must(other:get(Job, 9, { lock = "update" }))) return true end))
  end)

  it("are found by an index of theirs", function()
    local db = orm:session()
    for i = 1, 6 do job(db, i, { state = i % 2 == 0 and "1" or "it's \\ ünderway" }) end
    must(db:flush())
    local found = must(orm:session():all_by(Job, "state", "1"))
    assert.equal(3, #found)
    for _, e in ipairs(found) do assert.equal("1", e.state) end
    assert.equal(3, #must(orm:session():all_by(Job, "state", "it's \\ ünderway")))
    assert.equal(0, #must(orm:session():all_by(Job, "state", "2")))
  end)

  it("are changed by one row, by many, and with what is expected of them", function()
    local db = orm:session()
    for i = 1, 30 do job(db, i) end
    must(db:flush())
    local list = must(db:search(Job, "id > 0 ORDER BY id"):all())
    list[1].state = "new"
    must(db:flush())
    for i, e in ipairs(list) do
      e.state, e.tags = i % 2 == 0 and "1" or "it's \\ ünderway", { "green" }
    end
    must(db:flush())
    assert.equal("1|green|m64,m1|no", stored(2))
    assert.equal("it's \\ ünderway|green|m64,m1|no", stored(3))
    for _, e in ipairs(list) do
      e.state, e.tags = "2", { "it's \\ blue", "red" }
    end
    must(db:flush { cas = "changes" })
    for i = 1, 30 do assert.equal(AS_STORED, stored(i)) end
    local other = orm:session()
    local mine, theirs = must(db:get(Job, 5)), must(other:get(Job, 5))
    theirs.state = "1"
    must(other:flush())
    mine.state = "new"
    local ok, err = db:flush { cas = "changes" }
    assert.is_nil(ok)
    assert.equal("CONFLICT", err.code)
  end)

  it("go through the queue", function()
    local db = orm:session()
    for i = 101, 105 do job(db, i) end
    must(db:flush_async())
    check(must(orm:session():get(Job, 103)))
    support.drain(orm)
    for i = 101, 105 do assert.equal(AS_STORED, stored(i)) end
    local e = must(db:get(Job, 103))
    e.state, e.tags = "1", { "it's \\ blue", "green" }
    must(db:flush_async())
    support.drain(orm)
    assert.equal("1|it's \\ blue,green|m64,m1|no", stored(103))
    check(must(orm:session():get(Job, 103)), { state = "1", tags = { "green", "it's \\ blue" } })
  end)

  it("that a field does not list are an error that names it", function()
    local db = orm:session()
    job(db, 1)
    job(db, 2)
    must(db:flush())
    must(world.sql:query("UPDATE `" .. world.name .. "`.old_jobs SET state = 'gone' WHERE id = 1"))
    must(world.sql:query("UPDATE `" .. world.name .. "`.old_jobs SET tags = 'red,black' WHERE id = 2"))
    local Uncached = entity()
    local own = world:open({ Uncached }, { schema = false })
    for id, name in pairs { "state", "tags" } do
      local e, err = own:session():get(Uncached, id)
      assert.is_nil(e)
      assert.equal("SCHEMA", err.code)
      assert.equal(name, err.field)
      assert.matches("does not list", err.message)
    end
    world:shut(own)
  end)

  it("that a table does not list are an error that names the column", function()
    must(world.sql:connection(function(conn)
      return conn:execute("CREATE TABLE `" .. world.name .. "`.short (id BIGINT UNSIGNED PRIMARY KEY, "
        .. "state ENUM('old') NOT NULL, tags SET('a') NOT NULL)")
    end))
    local Short = regolith.entity("short", { field.enum "state" { "new", "old" }, field.set "tags" { "b", "a" } })
    local own = world:open({ Short }, { schema = false })
    for name, v in pairs { state = "new", tags = { "b" } } do
      local db = own:session()
      local values = { state = "old", tags = { "a" } }
      values[name] = v
      db:new(Short, values)
      local ok, err = db:flush()
      assert.is_nil(ok)
      assert.matches(name, err.message)
    end
    world:shut(own)
  end)
end)
