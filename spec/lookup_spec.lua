-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local support = require "support.init"
local prepare = require("support.people").prepare

local null = regolith.null
local must = support.must
local User, Team = require("support.people").User, require("support.people").Team

describe("session: lookups", function()
  local people = prepare { setup = setup, teardown = teardown, before_each = before_each, after_each = after_each }

  describe("by", function()
    it("finds by a unique index", function()
      local user = people:user { email = "ann@example.org" }
      people:fresh()
      assert.equal(user.id, people.db:by(User, "email", "ann@example.org").id)
      assert.is_nil((people.db:by(User, "email", "bob@example.org")))
    end)

    it("finds by several values, in order or by name", function()
      local team = people.db:new(Team, { name = "core" })
      local user = people:user { team = team, visits = 77 }
      people:fresh()
      team = people.db:by(Team, "name", "core")
      assert.equal(user.id, people.db:by(User, "place", { team, 77 }).id)
      assert.equal(user.id, people.db:by(User, "place", { visits = 77, team = team.id }).id)
      assert.is_nil((people.db:by(User, "place", { team, 78 })))
    end)

    it("raises for wrong indexes and missing values", function()
      assert.matches("no index 'emial' %(did you mean 'email'",
        select(2, pcall(function() people.db:by(User, "emial", 1) end)))
      assert.matches("is not unique; use all_by",
        select(2, pcall(function() people.db:by(User, "by_state", "new") end)))
      assert.matches("takes 2 values", select(2, pcall(function() people.db:by(User, "place", 1) end)))
      assert.matches("needs a value for 'visits'", select(2, pcall(function() people.db:by(User, "place", { 1 }) end)))
      local user, err = people.db:by(User, "place", { 1, -1 })
      assert.is_nil(user)
      assert.equal("INVALID", err.code)
      assert.equal("visits", err.field)
    end)
  end)

  describe("all_by", function()
    it("gives all, ordered by id, and pages", function()
      local ids = {}
      for i = 1, 5 do ids[i] = people:user { state = "active" }.id end
      people:user { state = "banned" }
      people:fresh()
      local list, total = people.db:all_by(User, "by_state", "active")
      assert.equal(5, total)
      for i, user in ipairs(list) do assert.equal(ids[i], user.id) end
      list, total = people.db:all_by(User, "by_state", "active", { page = 2, size = 2 })
      assert.equal(5, total)
      assert.same({ ids[3], ids[4] }, { list[1].id, list[2].id })
      assert.same({}, (people.db:all_by(User, "by_state", "active", { page = 9, size = 2 })))
    end)

    it("finds NULL by null", function()
      people:user()
      people:fresh()
      assert.equal(1, #people.db:all_by(User, "by_team", null))
    end)
  end)

  describe("all", function()
    it("gives everything, ordered by id", function()
      local a, b = people:user(), people:user()
      people:fresh()
      local list, total = people.db:all(User)
      assert.same({ a.id, b.id }, { list[1].id, list[2].id })
      assert.equal(2, total)
      assert.equal(1, #people.db:all(User, { page = 2, size = 1 }))
    end)
  end)

  describe("search", function()
    before_each(function()
      for i = 1, 7 do people:user { visits = i * 10, email = "s" .. i } end
      people:fresh()
    end)

    it("finds by a condition with parameters", function()
      local list = must(people.db:search(User, "visits > ? AND email <> ? ORDER BY visits DESC", 30, "s7"):all())
      assert.same({ 60, 50, 40 }, { list[1].visits, list[2].visits, list[3].visits })
    end)

    it("expands lists", function()
      assert.equal(2, people.db:search(User, "visits IN ?", { 10, 20, 25 }):count())
      assert.equal(2, people.db:search(User, "visits IN (?)", { 10, 20 }):count())
      assert.equal(0, people.db:search(User, "visits IN ?", {}):count())
      assert.equal(7, people.db:search(User, "visits NOT IN (?)", {}):count())
      assert.equal(1, people.db:search(User, "visits IN ? AND email = ?", { 10, 20 }, "s1"):count())
    end)

    it("leaves question marks in text and comments alone", function()
      assert.equal(0, people.db:search(User, "email = 'a?' AND visits > ? /* ? */", 1):count())
      assert.equal(0, people.db:search(User, "email = 'it''s \\'?' AND `visits` > ?", 1):count())
    end)

    it("gives one, pages, counts and ids", function()
      local query = people.db:search(User, "visits > ? ORDER BY visits", 0)
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
      assert.is_nil((people.db:search(User, "visits > 1000"):one()))
    end)

    it("counts only when the page cannot tell", function()
      local query = people.db:search(User, "visits > ?", 0)
      assert.equal(1, support.count(people.orm, function() query:page_with_count(1, 50) end).mysql)
      assert.equal(2, support.count(people.orm, function() query:page_with_count(1, 7) end).mysql)
    end)

    it("takes entities as parameters", function()
      local user = people.db:search(User, "email = ?", "s1"):one()
      assert.equal(user, people.db:search(User, "id = ?", user):one())
    end)

    it("gives the entity that the session knows, with its changes", function()
      local user = people.db:search(User, "email = ?", "s1"):one()
      user.visits = 1
      assert.equal(user, people.db:search(User, "email = ?", "s1"):one())
      assert.equal(1, user.visits)
    end)

    it("raises when parameters do not fit, returns the server's errors", function()
      local _, message = pcall(function() people.db:search(User, "visits > ?") end)
      assert.matches("lookup_spec.lua:%d+: the SQL has 1 placeholders, 0 parameters were given", message)
      assert.matches("whole number from 1 on",
        select(2, pcall(function() people.db:search(User, "1 = 1"):page(0, 5) end)))
      local list, err, errno, sqlstate = people.db:search(User, "nothing = 1"):all()
      assert.is_nil(list)
      assert.equal("SCHEMA", err.code)
      assert.equal(1054, errno)
      assert.equal("42S22", sqlstate)
    end)
  end)
end)
