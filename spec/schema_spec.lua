-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

describe("schema", function()
  local world

  setup(function() world = support.world() end)
  teardown(function() world:close() end)

  local function open(fields)
    return world:open({ regolith.entity("thing", fields) }, { schema = false })
  end

  it("makes tables, then finds nothing to do", function()
    local orm = open {
      field.string "name" { length = 80, unique = true }, field.int64 "big" { default = 5 },
      field.enum "state" { "a", "b" }, field.set "flags" { "x", "y", nullable = true },
      field.decimal "price" { precision = 12, scale = 3 }, field.datetime "at" { created = true },
      field.json "data" { nullable = true }, field.text "body", field.blob "bytes" { nullable = true },
      field.ref "other" { "thing" }, field.refs "others" { "thing" },
      field.struct "address" { field.string "city" { nullable = true } },
      field.array "score" { of = field.uint16, n = 2 },
      index = { by_state = { "state", "big" } },
    }
    local changes = must(orm:schema_diff())
    assert.equal(1, #changes)
    assert.same({ "default", "thing", "create table", true },
      { changes[1].pool, changes[1].table, changes[1].kind, changes[1].safe })
    local told = {}
    local result = must(orm:schema_apply { progress = function(change) told[#told + 1] = change.kind end })
    assert.same({ "create table" }, told)
    assert.same({ 1, 0 }, { #result.applied, #result.skipped })
    assert.same({}, must(orm:schema_diff()))
    world:shut(orm)
  end)

  it("adds what is missing, and leaves destructive changes out unless told", function()
    local orm = open { field.string "name" { length = 80, unique = true }, field.uint32 "new" { index = true } }
    local session = orm:session()
    must(session:execute "INSERT INTO thing (id, name, price, at, body, others) VALUES (1, 'a', 1, NOW(), '', '[]')")
    local result = must(orm:schema_apply())
    assert.is_true(#result.applied >= 1)
    assert.is_true(#result.skipped >= 1)
    for _, change in ipairs(result.skipped) do
      assert.is_false(change.safe)
      assert.is_string(change.sql)
      assert.is_string(change.reason)
    end
    must(orm:schema_apply { destructive = true })
    assert.same({}, must(orm:schema_diff()))
    assert.same({ { id = 1, name = "a", new = 0 } }, must(session:query "SELECT * FROM thing"))
    session:close()
    world:shut(orm)
  end)

  it("finds columns that the server gives values of its own: caches would not see them", function()
    local orm = world:open { regolith.entity("legacy", {
      field.datetime "touched" { nullable = true }, field.uint32 "twice", field.uint32 "once",
    }) }
    must(orm:session():execute "INSERT INTO legacy (id, once) VALUES (1, 4)")
    world.sql:connection(function(conn)
      must(conn:execute("ALTER TABLE `" .. world.name .. "`.legacy MODIFY touched DATETIME(6) NULL "
        .. "ON UPDATE CURRENT_TIMESTAMP(6), DROP COLUMN twice, "
        .. "ADD COLUMN twice INT UNSIGNED AS (once * 2) STORED"))
    end)
    local by_column = {}
    for _, change in ipairs(must(orm:schema_diff())) do
      assert.is_false(change.safe)
      if change.reason:find("values of its own", 1, true) then
        by_column[change.sql:match "MODIFY COLUMN `(%w+)`"] = true
      end
    end
    assert.same({ touched = true, twice = true }, by_column)
    must(orm:schema_apply { destructive = true })
    assert.same({}, must(orm:schema_diff()))
    assert.equal(8, must(orm:session():query "SELECT twice FROM legacy")[1].twice)
    world:shut(orm)
  end)

  it("stops at a failure and returns it", function()
    local orm = open { field.string "name" { length = 80 }, field.uint32 "new" { unique = true } }
    local session = orm:session()
    must(session:execute "INSERT INTO thing (id, name, new) VALUES (2, 'b', 0)")
    local told
    local result, err = orm:schema_apply { destructive = true, progress = function(_, fault) told = told or fault end }
    assert.is_nil(result)
    assert.equal("DUPLICATE_KEY", err.code)
    assert.is_truthy(told)
    session:close()
    world:shut(orm)
  end)

  it("leaves a full-text index to whoever says so: queries with MATCH fail without it", function()
    local orm = world:open { regolith.entity("words", { field.text "body" }) }
    local db = orm:session()
    must(db:execute "INSERT INTO words (id, body) VALUES (1, 'found')")
    must(world.sql:connection(function(conn)
      return conn:execute("ALTER TABLE `" .. world.name .. "`.words ADD FULLTEXT INDEX body (body)")
    end))
    local change = must(orm:schema_diff())[1]
    assert.same({ "drop index", false }, { change.kind, change.safe })
    assert.equal(0, #must(orm:schema_apply()).applied)
    assert.equal(1, #must(db:query "SELECT id FROM words WHERE MATCH(body) AGAINST ('found')"))
    must(orm:schema_apply { destructive = true })
    assert.same({}, must(orm:schema_diff()))
    db:close()
    world:shut(orm)
  end)

  it("names the table, and what the server names, when a change fails", function()
    local wrong = {
      { field.string "f" { collation = "utf8mb4_nope" }, "utf8mb4_nope" },
      { field.enum "f" { "a", "\195\164", collation = "utf8mb4_general_ci" }, "'f'" },
      { field.string "f" { length = 16383 }, "Row size too large" },
    }
    for _, case in ipairs(wrong) do
      local orm = world:open({ regolith.entity("wrong", { case[1] }) }, { schema = false })
      local result, err = orm:schema_apply()
      assert.is_nil(result)
      assert.matches("table 'wrong' (create table)", tostring(err), 1, true)
      assert.matches(case[2], tostring(err), 1, true)
      world:shut(orm)
    end
  end)

  it("says what is missing when tables are not there", function()
    local Gone = regolith.entity("gone", { field.bool "a" })
    local orm = world:open({ Gone }, { schema = false })
    local session = orm:session()
    local e, err, errno = session:get(Gone, 1)
    assert.is_nil(e)
    assert.same({ "SCHEMA", 1146 }, { err.code, errno })
    session:close()
    world:shut(orm)
  end)

  it("checks its options", function()
    local orm = open { field.bool "a" }
    assert.matches("unknown option 'destructiv'", select(2, pcall(orm.schema_apply, orm, { destructiv = true })))
    world:shut(orm)
  end)
end)
