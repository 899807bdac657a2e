-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local support = require "support.init"
local prepare = require("support.people").prepare

local field = regolith.field
local must = support.must
local User, Team = require("support.people").User, require("support.people").Team

describe("session", function()
  local people = prepare { setup = setup, teardown = teardown, before_each = before_each, after_each = after_each }

  describe("new", function()
    it("allots an id at once and writes at flush", function()
      local team = must(people.db:new(Team, { name = "core" }))
      assert.is_true(team.id > 0)
      assert.is_true(people.db:is_new(team))
      assert.equal(team, people.db:get(Team, team.id))
      local ok, changes = people.db:flush()
      assert.is_true(ok)
      assert.equal(1, changes)
      assert.is_false(people.db:is_new(team))
    end)

    it("takes ids below 2^53 that grow", function()
      local a, b = people.db:new(Team, { name = "a" }), people.db:new(Team, { name = "b" })
      assert.is_true(b.id > a.id and b.id < 2 ^ 53)
    end)

    it("brings normalised values and defaults back", function()
      local user = people:user { credit = "5", score = { 7 } }
      assert.is_nil(user.state)
      must(people.db:flush())
      assert.equal("new", user.state)
      assert.equal("5.00", user.credit)
      assert.same({ city = "" }, user.address)
      assert.same({ 7, 0 }, user.score)
      assert.same({}, user.friends)
    end)

    it("keeps the tables of a value that has not changed", function()
      local tags = { 1, 2 }
      local user = people:user { tags = tags }
      must(people.db:flush())
      assert.equal(tags, user.tags)
    end)

    it("writes referenced entities first, whatever the order", function()
      local user = people:user()
      local team = people.db:new(Team, { name = "late" })
      user.team = team
      must(people.db:flush())
      assert.equal(team.id, people:fresh():get(User, user.id).team_id)
    end)

    it("raises for a field that is not there", function()
      local ok, message = pcall(people.db.new, people.db, User, { emial = "x" })
      assert.is_false(ok)
      assert.matches("user has no field 'emial' %(did you mean 'email'%?%)", message)
      assert.matches("session_spec.lua:%d+: user has no field",
        select(2, pcall(function() people.db:new(User, { x = 1 }) end)))
      for _ = 1, 200 do -- under the JIT too
        assert.is_false(pcall(people.db.new, people.db, User, { email = "a@example.org", visits = 1, vists = 2 }))
        assert.is_false(pcall(people.db.new, people.db, User, { email = "a@example.org", "x" }))
      end
    end)

    it("raises for what is no entity of this orm", function()
      assert.matches("an entity is expected", select(2, pcall(function() people.db:new {} end)))
      assert.matches("not among those of this orm",
        select(2, pcall(function() people.db:new(regolith.entity("x", { field.bool "a" })) end)))
    end)
  end)

  describe("get", function()
    it("gives one entity per row and session", function()
      local id = people:user().id
      people:fresh()
      local user = people.db:get(User, id)
      assert.equal(user, people.db:get(User, id))
      assert.equal(user, people.db:get(User, tostring(id)))
      assert.is_not.equal(user, people.orm:session():get(User, id))
    end)

    it("gives nil for what is not there", function()
      local user, err = people.db:get(User, 123456789)
      assert.is_nil(user)
      assert.is_nil(err)
      assert.is_nil(people.db:get(User, 0))
      assert.is_nil(people.db:get(User, -1))
    end)

    it("raises for what is no id", function()
      assert.matches("an id is a whole number", select(2, pcall(function() people.db:get(User, 1.5) end)))
      assert.matches("an id is a whole number", select(2, pcall(function() people.db:get(User, {}) end)))
      assert.matches("session_spec", select(2, pcall(function() people.db:get(User, nil) end)))
    end)

    it("shows its fields to pairs, and nothing else", function()
      local id = people:user { tags = { 1 } }.id
      people:fresh()
      local names = {}
      for name in pairs(people.db:get(User, id)) do names[#names + 1] = name end
      table.sort(names)
      assert.same({ "address", "credit", "email", "friends", "id", "score", "state", "tags", "visits" }, names)
    end)
  end)

  describe("get_many", function()
    it("keeps order, duplicates and holes", function()
      local a, b = people:user().id, people:user().id
      people:fresh()
      local list = must(people.db:get_many(User, { b, 999999999, a, b }))
      assert.equal(4, list.n)
      assert.same({ b, a, b }, { list[1].id, list[3].id, list[4].id })
      assert.is_nil(list[2])
      assert.equal(list[1], list[4])
    end)

    it("asks MySQL once", function()
      local ids = {}
      for i = 1, 20 do ids[i] = people:user().id end
      people:fresh()
      local counts = support.count(people.orm, function() must(people.db:get_many(User, ids)) end)
      assert.equal(1, counts.mysql)
      assert.equal(0, support.count(people.orm, function() must(people.db:get_many(User, ids)) end).mysql)
    end)

    it("gives an empty list for no ids", function()
      assert.same({ n = 0 }, people.db:get_many(User, {}))
    end)
  end)

  describe("references", function()
    it("follows a reference when it is read", function()
      local user = people:user { team = people.db:new(Team, { name = "core" }) }
      people:fresh()
      user = people.db:get(User, user.id)
      assert.equal("core", user.team.name)
      assert.equal(user.team, user.team)
      user.team = nil
      assert.is_nil(user.team)
      assert.is_nil(user.team_id)
      user.team_id = 123456789
      assert.is_nil(user.team)
    end)

    it("raises for the wrong type of entity", function()
      local user = people:user()
      local _, message = pcall(function() user.team = user end)
      assert.matches("session_spec.lua:%d+: a reference to team cannot be a user", message)
      assert.matches("an entity or an id", select(2, pcall(function() user.team = {} end)))
    end)

    it("loads references of a list in one step", function()
      local ids = {}
      for i = 1, 5 do ids[i] = people:user { team = people.db:new(Team, { name = "t" .. i }) }.id end
      people:fresh()
      local list = must(people.db:get_many(User, ids))
      local counts = support.count(people.orm, function()
        assert.equal(list, people.db:load(list, "team"))
        for i, user in ipairs(list) do assert.equal("t" .. i, user.team.name) end
      end)
      assert.equal(1, counts.mysql)
    end)

    it("gives a list of references with false where one is missing", function()
      local a, b = people:user(), people:user()
      local user = people:user { friends = { a, 99999999, b } }
      must(people.db:flush())
      assert.same({ a.id, 99999999, b.id }, user.friends)
      local friends = must(people.db:refs(user, "friends"))
      assert.equal(3, friends.n)
      assert.equal(a, friends[1])
      assert.is_false(friends[2])
      assert.equal(b, friends[3])
      assert.equal(b, people.db:load(user, "friends")[3])
    end)
  end)

  describe("assignment", function()
    it("refuses unknown names, reading too", function()
      local user = people:user()
      local _, message = pcall(function() user.vists = 5 end)
      assert.matches("session_spec.lua:%d+: user has no field 'vists' %(did you mean 'visits'%?%)", message)
      assert.matches("no field 'vists'", select(2, pcall(function() return user.vists end)))
      assert.is_nil(user.seen)
    end)

    it("has methods", function()
      local user = people:user { email = "x" }
      assert.equal("x!", user:label())
      assert.matches("'label' is a method of user", select(2, pcall(function() user.label = 5 end)))
    end)

    it("sets by names, paths and SQL names", function()
      local user = people:user()
      people.db:set(user, { state = "active", ["address.city"] = "Ulm", score_2 = 9, ["score[1]"] = 8 })
      must(people.db:flush())
      user = people:fresh():get(User, user.id)
      assert.same({ "active", "Ulm", { 8, 9 } }, { user.state, user.address.city, user.score })
      assert.matches("no field 'adress.city'",
        select(2, pcall(function() people.db:set(user, { ["adress.city"] = 1 }) end)))
    end)
  end)

  describe("life", function()
    it("forgets everything on clear", function()
      local user = people:user()
      must(people.db:flush())
      people.db:clear()
      assert.matches("not in this session", select(2, pcall(function() people.db:delete(user) end)))
      assert.is_not.equal(user, people.db:get(User, user.id))
    end)

    it("raises after close", function()
      people.db:close()
      assert.matches("session_spec.lua:%d+: the session is closed",
        select(2, pcall(function() people.db:get(User, 1) end)))
      people.db:close() -- again
    end)

    it("closes before its orm or after it, once or twice", function()
      local orm = people.world:open { people.Team, User }
      local session, used = orm:session(), orm:session()
      used:new(User, { email = "x" })
      orm:close()
      used:close()
      session:close()
      session:close()
      orm:close()
      assert.matches("session_spec.lua:%d+: the orm is closed %(session%)",
        select(2, pcall(function() orm:session() end)))
    end)

    it("tells who used it under a closed orm where that was", function()
      local orm = people.world:open { people.Team, User }
      local session = orm:session()
      local user = session:new(User, { email = "x" })
      orm:close()
      for what, call in pairs {
        get = function() session:get(User, 1) end, get_many = function() session:get_many(User, { 1, 2 }) end,
        new = function() session:new(User) end, flush = function() session:flush() end,
        flush_async = function() session:flush_async() end, query = function() session:query "SELECT 1" end,
        search = function() session:search(User, "1 = 1"):all() end,
        transaction = function() session:transaction(function() end) end,
        insert_all = function() session:insert_all(User, { { email = "y" } }) end,
      } do
        assert.matches("^[^:]*session_spec.lua:%d+: the orm is closed", select(2, pcall(call)), what)
      end
      session:discard(user)
      session:close()
    end)

    it("survives the collector", function()
      for _ = 1, 200 do
        local session = people.orm:session()
        session:get(User, 1)
      end
      collectgarbage()
      collectgarbage()
    end)
  end)
end)
