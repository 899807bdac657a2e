-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field, null = regolith.field, regolith.null

local Team = regolith.entity("team", {
  field.string "name" { length = 80, required = true, unique = true },
})
local User = regolith.entity("user", {
  field.string "email" { length = 190, required = true },
  field.ref "team" { Team },
  field.enum "state" { "new", "active", "banned" },
  field.uint32 "visits",
  field.json "tags" { nullable = true },
  field.decimal "credit" { precision = 12, scale = 2 },
  field.time "seen" { nullable = true },
  field.refs "friends" { "user" },
  field.struct "address" { field.string "city", field.string "zip" { nullable = true } },
  field.array "score" { of = field.uint32, n = 2 },
  unique = { email = { "email" }, place = { "team", "visits" } },
  index = { by_state = { "state" }, by_team = { "team" } },
  methods = { label = function(user) return user.email .. "!" end },
})

describe("session", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { Team, User }
  end)

  teardown(function() world:close() end)

  before_each(function() db = orm:session() end)

  after_each(function()
    if getmetatable(db).__name then db:close() end
    local admin = orm:session()
    must(admin:execute "DELETE FROM `user`")
    must(admin:execute "DELETE FROM `team`")
    admin:close()
  end)

  --- Flushes, and gives a session that knows nothing.
  local function fresh()
    must(db:flush())
    db:close()
    db = orm:session()
    return db
  end

  local n = 0
  local function new_user(values)
    n = n + 1
    values = values or {}
    values.email = values.email or ("user" .. n .. "@example.org")
    values.visits = values.visits or n
    return must(db:new(User, values))
  end

  describe("new", function()
    it("allots an id at once and writes at flush", function()
      local team = must(db:new(Team, { name = "core" }))
      assert.is_true(team.id > 0)
      assert.is_true(db:is_new(team))
      assert.equal(team, db:get(Team, team.id))
      local ok, changes = db:flush()
      assert.is_true(ok)
      assert.equal(1, changes)
      assert.is_false(db:is_new(team))
    end)

    it("takes ids below 2^53 that grow", function()
      local a, b = db:new(Team, { name = "a" }), db:new(Team, { name = "b" })
      assert.is_true(b.id > a.id and b.id < 2 ^ 53)
    end)

    it("brings normalised values and defaults back", function()
      local user = new_user { credit = "5", score = { 7 } }
      assert.is_nil(user.state)
      must(db:flush())
      assert.equal("new", user.state)
      assert.equal("5.00", user.credit)
      assert.same({ city = "" }, user.address)
      assert.same({ 7, 0 }, user.score)
      assert.same({}, user.friends)
    end)

    it("keeps the tables of a value that has not changed", function()
      local tags = { 1, 2 }
      local user = new_user { tags = tags }
      must(db:flush())
      assert.equal(tags, user.tags)
    end)

    it("writes referenced entities first, whatever the order", function()
      local user = new_user()
      local team = db:new(Team, { name = "late" })
      user.team = team
      must(db:flush())
      assert.equal(team.id, fresh():get(User, user.id).team_id)
    end)

    it("raises for a field that is not there", function()
      local ok, message = pcall(db.new, db, User, { emial = "x" })
      assert.is_false(ok)
      assert.matches("user has no field 'emial' %(did you mean 'email'%?%)", message)
      assert.matches("session_spec.lua:%d+: user has no field",
        select(2, pcall(function() db:new(User, { x = 1 }) end)))
    end)

    it("raises for what is no entity of this orm", function()
      assert.matches("an entity is expected", select(2, pcall(function() db:new {} end)))
      assert.matches("not among those of this orm",
        select(2, pcall(function() db:new(regolith.entity("x", { field.bool "a" })) end)))
    end)
  end)

  describe("get", function()
    it("gives one entity per row and session", function()
      local id = new_user().id
      fresh()
      local user = db:get(User, id)
      assert.equal(user, db:get(User, id))
      assert.equal(user, db:get(User, tostring(id)))
      assert.is_not.equal(user, orm:session():get(User, id))
    end)

    it("gives nil for what is not there", function()
      local user, err = db:get(User, 123456789)
      assert.is_nil(user)
      assert.is_nil(err)
      assert.is_nil(db:get(User, 0))
      assert.is_nil(db:get(User, -1))
    end)

    it("raises for what is no id", function()
      assert.matches("an id is a whole number", select(2, pcall(function() db:get(User, 1.5) end)))
      assert.matches("an id is a whole number", select(2, pcall(function() db:get(User, {}) end)))
      assert.matches("session_spec", select(2, pcall(function() db:get(User, nil) end)))
    end)

    it("shows its fields to pairs, and nothing else", function()
      local id = new_user { tags = { 1 } }.id
      fresh()
      local names = {}
      for name in pairs(db:get(User, id)) do names[#names + 1] = name end
      table.sort(names)
      assert.same({ "address", "credit", "email", "friends", "id", "score", "state", "tags", "visits" }, names)
    end)
  end)

  describe("get_many", function()
    it("keeps order, duplicates and holes", function()
      local a, b = new_user().id, new_user().id
      fresh()
      local list = must(db:get_many(User, { b, 999999999, a, b }))
      assert.equal(4, list.n)
      assert.same({ b, a, b }, { list[1].id, list[3].id, list[4].id })
      assert.is_nil(list[2])
      assert.equal(list[1], list[4])
    end)

    it("asks MySQL once", function()
      local ids = {}
      for i = 1, 20 do ids[i] = new_user().id end
      fresh()
      local counts = support.count(orm, function() must(db:get_many(User, ids)) end)
      assert.equal(1, counts.mysql)
      assert.equal(0, support.count(orm, function() must(db:get_many(User, ids)) end).mysql)
    end)

    it("gives an empty list for no ids", function()
      assert.same({ n = 0 }, db:get_many(User, {}))
    end)
  end)

  describe("by", function()
    it("finds by a unique index", function()
      local user = new_user { email = "ann@example.org" }
      fresh()
      assert.equal(user.id, db:by(User, "email", "ann@example.org").id)
      assert.is_nil((db:by(User, "email", "bob@example.org")))
    end)

    it("finds by several values, in order or by name", function()
      local team = db:new(Team, { name = "core" })
      local user = new_user { team = team, visits = 77 }
      fresh()
      team = db:by(Team, "name", "core")
      assert.equal(user.id, db:by(User, "place", { team, 77 }).id)
      assert.equal(user.id, db:by(User, "place", { visits = 77, team = team.id }).id)
      assert.is_nil((db:by(User, "place", { team, 78 })))
    end)

    it("raises for wrong indexes and missing values", function()
      assert.matches("no index 'emial' %(did you mean 'email'",
        select(2, pcall(function() db:by(User, "emial", 1) end)))
      assert.matches("is not unique; use all_by", select(2, pcall(function() db:by(User, "by_state", "new") end)))
      assert.matches("takes 2 values", select(2, pcall(function() db:by(User, "place", 1) end)))
      assert.matches("needs a value for 'visits'", select(2, pcall(function() db:by(User, "place", { 1 }) end)))
      local user, err = db:by(User, "place", { 1, -1 })
      assert.is_nil(user)
      assert.equal("INVALID", err.code)
      assert.equal("visits", err.field)
    end)
  end)

  describe("all_by", function()
    it("gives all, ordered by id, and pages", function()
      local ids = {}
      for i = 1, 5 do ids[i] = new_user { state = "active" }.id end
      new_user { state = "banned" }
      fresh()
      local list, total = db:all_by(User, "by_state", "active")
      assert.equal(5, total)
      for i, user in ipairs(list) do assert.equal(ids[i], user.id) end
      list, total = db:all_by(User, "by_state", "active", { page = 2, size = 2 })
      assert.equal(5, total)
      assert.same({ ids[3], ids[4] }, { list[1].id, list[2].id })
      assert.same({}, (db:all_by(User, "by_state", "active", { page = 9, size = 2 })))
    end)

    it("finds NULL by null", function()
      new_user()
      fresh()
      assert.equal(1, #db:all_by(User, "by_team", null))
    end)
  end)

  describe("all", function()
    it("gives everything, ordered by id", function()
      local a, b = new_user(), new_user()
      fresh()
      local list, total = db:all(User)
      assert.same({ a.id, b.id }, { list[1].id, list[2].id })
      assert.equal(2, total)
      assert.equal(1, #db:all(User, { page = 2, size = 1 }))
    end)
  end)

  describe("search", function()
    before_each(function()
      for i = 1, 7 do new_user { visits = i * 10, email = "s" .. i } end
      fresh()
    end)

    it("finds by a condition with parameters", function()
      local list = must(db:search(User, "visits > ? AND email <> ? ORDER BY visits DESC", 30, "s7"):all())
      assert.same({ 60, 50, 40 }, { list[1].visits, list[2].visits, list[3].visits })
    end)

    it("expands lists", function()
      assert.equal(2, db:search(User, "visits IN ?", { 10, 20, 25 }):count())
      assert.equal(2, db:search(User, "visits IN (?)", { 10, 20 }):count())
      assert.equal(0, db:search(User, "visits IN ?", {}):count())
      assert.equal(7, db:search(User, "visits NOT IN (?)", {}):count())
      assert.equal(1, db:search(User, "visits IN ? AND email = ?", { 10, 20 }, "s1"):count())
    end)

    it("leaves question marks in text and comments alone", function()
      assert.equal(0, db:search(User, "email = 'a?' AND visits > ? /* ? */", 1):count())
      assert.equal(0, db:search(User, "email = 'it''s \\'?' AND `visits` > ?", 1):count())
    end)

    it("gives one, pages, counts and ids", function()
      local query = db:search(User, "visits > ? ORDER BY visits", 0)
      assert.equal(10, query:one().visits)
      assert.equal(30, query:page(2, 2)[1].visits)
      local list, total = query:page_with_count(2, 3)
      assert.equal(3, #list)
      assert.equal(7, total)
      list, total = query:page_with_count(3, 3)
      assert.equal(1, #list)
      assert.equal(7, total)
      list, total = query:page_with_count(9, 3)
      assert.same({}, list)
      assert.equal(7, total)
      assert.equal(7, query:count())
      assert.equal(7, #query:ids())
      assert.equal(2, #query:limit(2, 5):all())
      assert.is_nil((db:search(User, "visits > 1000"):one()))
    end)

    it("counts only when the page cannot tell", function()
      local query = db:search(User, "visits > ?", 0)
      assert.equal(1, support.count(orm, function() query:page_with_count(1, 50) end).mysql)
      assert.equal(2, support.count(orm, function() query:page_with_count(1, 7) end).mysql)
    end)

    it("takes entities as parameters", function()
      local user = db:search(User, "email = ?", "s1"):one()
      assert.equal(user, db:search(User, "id = ?", user):one())
    end)

    it("gives the entity that the session knows, with its changes", function()
      local user = db:search(User, "email = ?", "s1"):one()
      user.visits = 1
      assert.equal(user, db:search(User, "email = ?", "s1"):one())
      assert.equal(1, user.visits)
    end)

    it("raises when parameters do not fit, returns the server's errors", function()
      local _, message = pcall(function() db:search(User, "visits > ?") end)
      assert.matches("session_spec.lua:%d+: the SQL has 1 placeholders, 0 parameters were given", message)
      assert.matches("whole number from 1 on", select(2, pcall(function() db:search(User, "1 = 1"):page(0, 5) end)))
      local list, err, errno, sqlstate = db:search(User, "nothing = 1"):all()
      assert.is_nil(list)
      assert.equal("SCHEMA", err.code)
      assert.equal(1054, errno)
      assert.equal("42S22", sqlstate)
    end)
  end)

  describe("references", function()
    it("follows a reference when it is read", function()
      local user = new_user { team = db:new(Team, { name = "core" }) }
      fresh()
      user = db:get(User, user.id)
      assert.equal("core", user.team.name)
      assert.equal(user.team, user.team)
      user.team = nil
      assert.is_nil(user.team)
      assert.is_nil(user.team_id)
      user.team_id = 123456789
      assert.is_nil(user.team)
    end)

    it("raises for the wrong type of entity", function()
      local user = new_user()
      local _, message = pcall(function() user.team = user end)
      assert.matches("session_spec.lua:%d+: a reference to team cannot be a user", message)
      assert.matches("an entity or an id", select(2, pcall(function() user.team = {} end)))
    end)

    it("loads references of a list in one step", function()
      local ids = {}
      for i = 1, 5 do ids[i] = new_user { team = db:new(Team, { name = "t" .. i }) }.id end
      fresh()
      local list = must(db:get_many(User, ids))
      local counts = support.count(orm, function()
        assert.equal(list, db:load(list, "team"))
        for i, user in ipairs(list) do assert.equal("t" .. i, user.team.name) end
      end)
      assert.equal(1, counts.mysql)
    end)

    it("gives a list of references with false where one is missing", function()
      local a, b = new_user(), new_user()
      local user = new_user { friends = { a, 99999999, b } }
      must(db:flush())
      assert.same({ a.id, 99999999, b.id }, user.friends)
      local friends = must(db:refs(user, "friends"))
      assert.equal(3, friends.n)
      assert.equal(a, friends[1])
      assert.is_false(friends[2])
      assert.equal(b, friends[3])
      assert.equal(b, db:load(user, "friends")[3])
    end)
  end)

  describe("assignment", function()
    it("refuses unknown names, reading too", function()
      local user = new_user()
      local _, message = pcall(function() user.vists = 5 end)
      assert.matches("session_spec.lua:%d+: user has no field 'vists' %(did you mean 'visits'%?%)", message)
      assert.matches("no field 'vists'", select(2, pcall(function() return user.vists end)))
      assert.is_nil(user.seen)
    end)

    it("has methods", function()
      assert.equal("x!", new_user({ email = "x" }):label())
    end)

    it("sets by names, paths and SQL names", function()
      local user = new_user()
      db:set(user, { state = "active", ["address.city"] = "Ulm", score_2 = 9, ["score[1]"] = 8 })
      must(db:flush())
      user = fresh():get(User, user.id)
      assert.same({ "active", "Ulm", { 8, 9 } }, { user.state, user.address.city, user.score })
      assert.matches("no field 'adress.city'", select(2, pcall(function() db:set(user, { ["adress.city"] = 1 }) end)))
    end)
  end)

  describe("flush", function()
    it("does nothing when nothing is pending", function()
      local user = new_user()
      fresh():get(User, user.id)
      local counts = support.count(orm, function() assert.same({ true, 0 }, { db:flush() }) end)
      assert.equal(0, counts.mysql)
    end)

    it("sends only the changed columns", function()
      local user = new_user()
      must(db:flush())
      user.visits = user.visits + 1000
      user.address.city = "Ulm"
      local counts = support.count(orm, function() must(db:flush()) end)
      local text = table.concat(counts.texts, "\n")
      assert.matches("visits", text)
      assert.matches("address_city", text)
      assert.is_nil(text:find("email", 1, true), text)
    end)

    it("sends nothing for a change that was taken back", function()
      local user = new_user { tags = { a = { 1 } } }
      must(db:flush())
      user.visits, user.tags = user.visits, { a = { 1 } }
      user.score = { user.score[1], user.score[2] }
      assert.equal(0, select(2, db:flush()))
    end)

    it("names the field that is wrong, and can be tried again", function()
      local user = db:new(User, { email = "" })
      local ok, err = db:flush()
      assert.is_nil(ok)
      assert.equal("INVALID", err.code)
      assert.equal("email", err.field)
      assert.equal("user", err.entity)
      assert.equal(user, err.row)
      assert.equal("INVALID", select(2, db:flush()).code)
      user.email = "ok@example.org"
      must(db:flush())
      assert.equal("ok@example.org", fresh():get(User, user.id).email)
    end)

    it("names the index of a duplicate, and can be tried again", function()
      db:new(Team, { name = "core" })
      must(db:flush())
      local twin = db:new(Team, { name = "core" })
      local other = db:new(Team, { name = "other" })
      local ok, err, errno, sqlstate = db:flush()
      assert.is_nil(ok)
      assert.same({ "DUPLICATE_KEY", "name", 1062, "23000" }, { err.code, err.index, errno, sqlstate })
      assert.matches("^DUPLICATE_KEY: ", tostring(err))
      assert.equal("DUPLICATE_KEY", select(2, pcall(support.assert, db:flush())).code)
      assert.matches("x DUPLICATE_KEY", "x " .. err)
      assert.is_true(db:is_new(other))
      twin.name = "twin"
      assert.equal(2, select(2, db:flush()))
      assert.equal(twin.id, orm:session():by(Team, "name", "twin").id)
    end)

    it("rolls everything back when one item fails", function()
      db:new(Team, { name = "one" })
      must(db:flush())
      local team = db:by(Team, "name", "one")
      db:new(Team, { name = "two" })
      db:new(Team, { name = "one" })
      team.name = "three"
      db:discard(team)
      assert.is_nil((db:flush()))
      assert.equal(1, orm:session():search(Team, "1 = 1"):count())
    end)

    it("inserts, updates and deletes in one go", function()
      local a, b = new_user(), new_user()
      must(db:flush())
      a.visits = 5000
      db:delete(b)
      new_user()
      assert.equal(3, select(2, db:flush()))
      local other = orm:session()
      assert.equal(5000, other:get(User, a.id).visits)
      assert.is_nil(other:get(User, b.id))
      assert.is_nil(db:get(User, b.id))
    end)

    it("reuses a unique value that a deletion has freed", function()
      local team = db:new(Team, { name = "core" })
      must(db:flush())
      db:delete(team)
      local again = db:new(Team, { name = "core" })
      must(db:flush())
      assert.equal(again.id, orm:session():by(Team, "name", "core").id)
    end)
  end)

  describe("delete", function()
    it("hides the entity at once, removes it at flush", function()
      local user = new_user()
      must(db:flush())
      assert.is_true(db:delete(user))
      assert.is_nil(db:get(User, user.id))
      assert.is_nil((db:by(User, "email", user.email)))
      assert.same({}, db:search(User, "1 = 1"):all())
      must(db:flush())
      assert.matches("is not in this session", select(2, pcall(function() db:delete(user) end)))
      assert.equal(0, orm:session():search(User, "1 = 1"):count())
    end)

    it("forgets a new entity", function()
      db:delete(new_user())
      assert.equal(0, select(2, db:flush()))
    end)
  end)

  describe("discard", function()
    it("forgets all that is pending", function()
      local a, b = new_user(), new_user()
      must(db:flush())
      local was = a.visits
      a.visits, a.address.city = 1, "x"
      db:delete(b)
      new_user()
      db:discard()
      assert.equal(was, a.visits)
      assert.equal("", a.address.city)
      assert.equal(b, db:get(User, b.id))
      assert.equal(0, select(2, db:flush()))
    end)

    it("forgets what is pending of one", function()
      local a = new_user()
      local b = new_user()
      db:discard(a)
      assert.equal(1, select(2, db:flush()))
      assert.matches("not in this session", select(2, pcall(function() db:discard(a) end)))
      assert.equal(b, db:get(User, b.id))
    end)
  end)

  describe("dirty", function()
    it("tells what a flush would change", function()
      local user = new_user()
      local old, new = db:dirty(user)
      assert.same({}, old)
      assert.equal(user.email, new.email)
      must(db:flush())
      assert.is_nil(db:dirty(user))
      user.visits, user.address.city = 4711, "Ulm"
      old, new = db:dirty(user)
      assert.equal("", old["address.city"])
      assert.same({ ["address.city"] = "Ulm", visits = 4711 }, new)
      db:discard()
      db:delete(user)
      old, new = db:dirty(user)
      assert.equal(user.email, old.email)
      assert.same({}, new)
    end)
  end)

  describe("update", function()
    it("writes some columns now, whatever else is pending", function()
      local user = new_user()
      must(db:flush())
      user.state = "banned"
      assert.same({ changed = true }, db:update(user, { visits = 999, ["address.city"] = "Ulm" }))
      assert.same({ 999, "Ulm", "banned" }, { user.visits, user.address.city, user.state })
      local other = orm:session():get(User, user.id)
      assert.same({ 999, "Ulm", "new" }, { other.visits, other.address.city, other.state })
      assert.same({ changed = false }, db:update(user, { visits = 999 }))
      assert.equal(1, select(2, db:flush()))
    end)

    it("keeps the old value when it fails", function()
      local user = new_user()
      must(db:flush())
      local was = user.visits
      local answer, err = db:update(user, { visits = -1 })
      assert.is_nil(answer)
      assert.equal("visits", err.field)
      assert.equal(was, user.visits)
      assert.equal(0, select(2, db:flush()))
    end)
  end)

  describe("copy", function()
    it("is a new entity with the same values", function()
      local user = new_user { tags = { 1 }, friends = { 5 } }
      must(db:flush())
      local copy = must(db:copy(user))
      assert.is_not.equal(user.id, copy.id)
      assert.is_not.equal(user.tags, copy.tags)
      copy.email, copy.visits = "copy", 12345
      must(db:flush())
      assert.same({ 1 }, fresh():get(User, copy.id).tags)
    end)
  end)

  describe("reload", function()
    it("reads anew and drops changes", function()
      local user = new_user()
      must(db:flush())
      must(db:execute("UPDATE `user` SET visits = 31337 WHERE id = ?", user))
      user.state = "banned"
      assert.equal(user, db:reload(user))
      assert.same({ 31337, "new" }, { user.visits, user.state })
      assert.equal(0, select(2, db:flush()))
    end)

    it("says CONFLICT when the row is gone", function()
      local user = new_user()
      must(db:flush())
      must(db:execute("DELETE FROM `user` WHERE id = ?", user.id))
      local ok, err = db:reload(user)
      assert.is_nil(ok)
      assert.equal("CONFLICT", err.code)
    end)
  end)

  describe("raw SQL", function()
    it("keeps types", function()
      local rows = must(db:query([[
        SELECT 1 AS i, 18446744073709551615 AS big, 1.50 AS d, 'x' AS s, NULL AS n, 1e0 AS f, CAST(? AS CHAR) AS p
      ]], "é"))
      assert.same({ { i = 1, big = "18446744073709551615", d = "1.50", s = "x", f = 1, p = "é" } }, rows)
    end)

    it("binds every kind of parameter", function()
      local rows = must(db:query("SELECT ? + 0 AS a, ? AS b, ? IS NULL AS c, ? AS d, ? AS e",
        9007199254740993LL, "t", nil, true, 0.5))
      assert.same({ a = "9007199254740993", b = "t", c = 1, d = 1, e = 0.5 }, rows[1])
      assert.equal(2, #db:query("SELECT 1 AS x WHERE 1 IN ? UNION ALL SELECT 2", { 1, 2 }))
    end)

    it("tells affected rows and insert ids", function()
      local answer = must(db:execute("INSERT INTO `team` (id, name) VALUES (900001, 'a'), (900002, 'b')"))
      assert.equal(2, answer.affected)
    end)

    it("gives all result sets of a call", function()
      must(db:connection(function(conn)
        return conn:execute "CREATE PROCEDURE two_sets() BEGIN SELECT 1 AS a; SELECT 2 AS b, 3 AS c; END"
      end))
      local sets = must(db:call "CALL two_sets()")
      assert.same({ { a = 1 } }, sets[1])
      assert.same({ { b = 2, c = 3 } }, sets[2])
    end)

    it("returns the server's errors, raises for misuse", function()
      local rows, err, errno = db:query "SELEKT"
      assert.is_nil(rows)
      assert.equal("SQL", err.code)
      assert.equal(1064, errno)
      assert.matches("session_spec.lua:%d+: the SQL has 1 placeholders",
        select(2, pcall(function() db:query "SELECT ?" end)))
      assert.matches("session_spec.lua:%d+: parameter 1 is a function",
        select(2, pcall(function() db:query("SELECT ?", print) end)))
      local _, unknown = db:query { "SELECT 1", pool = "nowhere" }
      assert.matches("nowhere", unknown.message)
    end)

    it("lends a connection and takes it back clean", function()
      local id = db:connection(function(conn)
        must(conn:execute "SET @x = 5")
        assert.equal(5, conn:query("SELECT @x AS x")[1].x)
        return conn:query("SELECT CONNECTION_ID() AS id")[1].id
      end)
      assert.is_number(id)
      local kept
      local ok, message = pcall(function()
        db:connection("default", function(conn)
          kept = conn
          must(conn:execute "START TRANSACTION")
          must(conn:execute "INSERT INTO `team` (id, name) VALUES (900003, 'c')")
          error("stop", 0)
        end)
      end)
      assert.same({ false, "stop" }, { ok, message })
      assert.matches("has been given back", select(2, pcall(function() kept:query "SELECT 1" end)))
      assert.equal(0, support.eventually(function()
        local rows = must(db:query "SELECT COUNT(*) AS n FROM `team` WHERE id = 900003")
        return rows[1].n == 0 and 0
      end))
    end)
  end)

  describe("life", function()
    it("forgets everything on clear", function()
      local user = new_user()
      must(db:flush())
      db:clear()
      assert.matches("not in this session", select(2, pcall(function() db:delete(user) end)))
      assert.is_not.equal(user, db:get(User, user.id))
    end)

    it("raises after close", function()
      db:close()
      assert.matches("session_spec.lua:%d+: the session is closed", select(2, pcall(function() db:get(User, 1) end)))
    end)

    it("survives the collector", function()
      for _ = 1, 200 do
        local session = orm:session()
        session:get(User, 1)
      end
      collectgarbage()
      collectgarbage()
    end)
  end)
end)
