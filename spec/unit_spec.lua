-- SPDX-License-Identifier: MIT
local support = require "support.init"
local prepare = require("support.people").prepare

local must = support.must
local null = require("regolith").null
local User, Team = require("support.people").User, require("support.people").Team

describe("session: unit of work", function()
  local people = prepare { setup = setup, teardown = teardown, before_each = before_each, after_each = after_each }

  describe("flush", function()
    it("does nothing when nothing is pending", function()
      local user = people:user()
      people:fresh():get(User, user.id)
      local counts = support.count(people.orm, function() assert.same({ true, 0 }, { people.db:flush() }) end)
      assert.equal(0, counts.mysql)
    end)

    it("sends only the changed columns", function()
      local user = people:user()
      must(people.db:flush())
      user.visits = user.visits + 1000
      user.address.city = "Ulm"
      local counts = support.count(people.orm, function() must(people.db:flush()) end)
      local text = table.concat(counts.texts, "\n")
      assert.matches("visits", text)
      assert.matches("address_city", text)
      assert.is_nil(text:find("email", 1, true), text)
    end)

    it("sends nothing for a change that was taken back", function()
      local user = people:user { tags = { a = { 1 } } }
      must(people.db:flush())
      user.visits, user.tags = user.visits, { a = { 1 } }
      user.score = { user.score[1], user.score[2] }
      assert.equal(0, select(2, people.db:flush()))
    end)

    it("gives what says the same the form in which it is stored", function()
      local user = people:user { credit = "1.50", visits = 0 }
      must(people.db:flush())
      user.visits, user.state, user.credit, user.address = nil, null, 1.5, nil
      assert.equal("", support.statements(people.orm, function() assert.equal(0, select(2, people.db:flush())) end))
      assert.same({ 0, "new", "1.50" }, { user.visits, user.state, user.credit })
      assert.is_table(user.address)
      user.visits = "0"
      must(people.db:flush())
      assert.equal(0, user.visits)
    end)

    it("names the field that is wrong, and can be tried again", function()
      local user = people.db:new(User, { email = "" })
      local ok, err = people.db:flush()
      assert.is_nil(ok)
      assert.equal("INVALID", err.code)
      assert.equal("email", err.field)
      assert.equal("user", err.entity)
      assert.equal(user, err.row)
      assert.equal("INVALID", select(2, people.db:flush()).code)
      user.email = "ok@example.org"
      must(people.db:flush())
      assert.equal("ok@example.org", people:fresh():get(User, user.id).email)
    end)

    it("names the index of a duplicate, and can be tried again", function()
      people.db:new(Team, { name = "core" })
      must(people.db:flush())
      local twin = people.db:new(Team, { name = "core" })
      local other = people.db:new(Team, { name = "other" })
      local ok, err, errno, sqlstate = people.db:flush()
      assert.is_nil(ok)
      assert.same({ "DUPLICATE_KEY", "name", 1062, "23000" }, { err.code, err.index, errno, sqlstate })
      assert.matches("^DUPLICATE_KEY: ", tostring(err))
      assert.equal("DUPLICATE_KEY", select(2, pcall(support.assert, people.db:flush())).code)
      assert.matches("x DUPLICATE_KEY", "x " .. err)
      assert.is_true(people.db:is_new(other))
      twin.name = "twin"
      assert.equal(2, select(2, people.db:flush()))
      assert.equal(twin.id, people.orm:session():by(Team, "name", "twin").id)
    end)

    it("rolls everything back when one item fails", function()
      people.db:new(Team, { name = "one" })
      must(people.db:flush())
      local team = people.db:by(Team, "name", "one")
      people.db:new(Team, { name = "two" })
      people.db:new(Team, { name = "one" })
      team.name = "three"
      people.db:discard(team)
      assert.is_nil((people.db:flush()))
      assert.equal(1, people.orm:session():search(Team, "1 = 1"):count())
    end)

    it("inserts, updates and deletes in one go", function()
      local a, b = people:user(), people:user()
      must(people.db:flush())
      a.visits = 5000
      people.db:delete(b)
      people:user()
      assert.equal(3, select(2, people.db:flush()))
      local other = people.orm:session()
      assert.equal(5000, other:get(User, a.id).visits)
      assert.is_nil(other:get(User, b.id))
      assert.is_nil(people.db:get(User, b.id))
    end)

    it("reuses a unique value that a deletion has freed", function()
      local team = people.db:new(Team, { name = "core" })
      must(people.db:flush())
      people.db:delete(team)
      local again = people.db:new(Team, { name = "core" })
      must(people.db:flush())
      assert.equal(again.id, people.orm:session():by(Team, "name", "core").id)
    end)
  end)

  describe("delete", function()
    it("hides the entity at once, removes it at flush", function()
      local user = people:user()
      must(people.db:flush())
      assert.is_true(people.db:delete(user))
      assert.is_nil(people.db:get(User, user.id))
      assert.is_nil((people.db:by(User, "email", user.email)))
      assert.same({}, people.db:search(User, "1 = 1"):all())
      must(people.db:flush())
      assert.matches("is not in this session", select(2, pcall(function() people.db:delete(user) end)))
      assert.equal(0, people.orm:session():search(User, "1 = 1"):count())
    end)

    it("leaves alone an entity whose id a new one was given in vain", function()
      local user = people:user()
      must(people.db:flush())
      local twin = people:user { id = user.id }
      user.visits = 5
      local ok, err = people.db:flush()
      assert.same({ nil, "DUPLICATE_KEY", "PRIMARY" }, { ok, err.code, err.index })
      people.db:discard(twin)
      assert.equal(user, people.db:get(User, user.id))
      must(people.db:flush())
      assert.equal(5, people.orm:session():get(User, user.id).visits)
    end)

    it("forgets an entity whose row others have deleted, once a new one has its id", function()
      local gone = people:user()
      must(people.db:flush())
      local other = people.orm:session()
      other:delete(must(other:get(User, gone.id)))
      must(other:flush())
      local user = people:user { id = gone.id }
      must(people.db:flush())
      gone.email = "ghost@example.org"
      assert.same({ true, 0 }, { people.db:flush() })
      assert.matches("not in this session", select(2, pcall(people.db.update, people.db, gone, { visits = 1 })))
      people.db:discard()
      assert.equal(user, people.db:get(User, user.id))
      user.visits = 4242
      assert.equal(1, select(2, people.db:flush()))
      assert.same({ user.email, 4242 }, { must(other:get(User, user.id)).email, other:get(User, user.id).visits })
    end)

    it("forgets a new entity", function()
      people.db:delete(people:user())
      assert.equal(0, select(2, people.db:flush()))
    end)
  end)

  describe("discard", function()
    it("forgets all that is pending", function()
      local a, b = people:user(), people:user()
      must(people.db:flush())
      local was = a.visits
      a.visits, a.address.city = 1, "x"
      people.db:delete(b)
      people:user()
      people.db:discard()
      assert.equal(was, a.visits)
      assert.equal("", a.address.city)
      assert.equal(b, people.db:get(User, b.id))
      assert.equal(0, select(2, people.db:flush()))
    end)

    it("forgets what is pending of one", function()
      local a = people:user()
      local b = people:user()
      people.db:discard(a)
      assert.equal(1, select(2, people.db:flush()))
      assert.matches("not in this session", select(2, pcall(function() people.db:discard(a) end)))
      assert.equal(b, people.db:get(User, b.id))
    end)

    it("finds an entity whose id was changed, and gives it its id back", function()
      local a, b, c = people:user(), people:user(), people:user()
      must(people.db:flush())
      local id, new = a.id, people:user()
      a.id, a.visits, c.id, new.id = b.id, 4711, c.id + 1000, 123456789
      people.db:delete(b)
      people.db:discard(a)
      people.db:discard(c)
      people.db:discard(new)
      assert.same({ id, true }, { a.id, a.visits ~= 4711 })
      assert.equal(a, people.db:get(User, id))
      assert.equal(c, people.db:get(User, c.id))
      people.db:discard(b)
      assert.equal(b, people.db:get(User, b.id))
      assert.same({ true, 0 }, { people.db:flush() })
      local another = people.orm:session()
      assert.matches("not in this session", select(2, pcall(function() another:discard(a) end)))
      another:close()
    end)
  end)

  describe("dirty", function()
    it("tells what a flush would change", function()
      local user = people:user()
      local old, new = people.db:dirty(user)
      assert.same({}, old)
      assert.equal(user.email, new.email)
      must(people.db:flush())
      assert.is_nil(people.db:dirty(user))
      user.visits, user.address.city = 4711, "Ulm"
      old, new = people.db:dirty(user)
      assert.equal("", old["address.city"])
      assert.same({ ["address.city"] = "Ulm", visits = 4711 }, new)
      people.db:discard()
      people.db:delete(user)
      old, new = people.db:dirty(user)
      assert.equal(user.email, old.email)
      assert.same({}, new)
    end)
  end)

  describe("update", function()
    it("writes some columns now, whatever else is pending", function()
      local user = people:user()
      must(people.db:flush())
      user.state = "banned"
      assert.same({ outcome = "applied", applied = true, changed = true },
        people.db:update(user, { visits = 999, ["address.city"] = "Ulm" }))
      assert.same({ 999, "Ulm", "banned" }, { user.visits, user.address.city, user.state })
      local other = people.orm:session():get(User, user.id)
      assert.same({ 999, "Ulm", "new" }, { other.visits, other.address.city, other.state })
      assert.same({ outcome = "unchanged", unchanged = true, changed = false },
        people.db:update(user, { visits = 999 }))
      assert.equal(1, select(2, people.db:flush()))
    end)

    it("keeps the old value when it fails", function()
      local user = people:user()
      must(people.db:flush())
      local was = user.visits
      local answer, err = people.db:update(user, { visits = -1 })
      assert.is_nil(answer)
      assert.equal("visits", err.field)
      assert.equal(was, user.visits)
      assert.equal(0, select(2, people.db:flush()))
    end)
  end)

  describe("copy", function()
    it("is a new entity with the same values", function()
      local user = people:user { tags = { 1 }, friends = { 5 } }
      must(people.db:flush())
      local copy = must(people.db:copy(user))
      assert.is_not.equal(user.id, copy.id)
      assert.is_not.equal(user.tags, copy.tags)
      copy.email, copy.visits = "copy", 12345
      must(people.db:flush())
      assert.same({ 1 }, people:fresh():get(User, copy.id).tags)
    end)
  end)

  describe("reload", function()
    it("reads anew and drops changes", function()
      local user = people:user()
      must(people.db:flush())
      must(people.db:execute("UPDATE `user` SET visits = 31337 WHERE id = ?", user))
      user.state = "banned"
      assert.equal(user, people.db:reload(user))
      assert.same({ 31337, "new" }, { user.visits, user.state })
      assert.equal(0, select(2, people.db:flush()))
    end)

    it("says CONFLICT when the row is gone", function()
      local user = people:user()
      must(people.db:flush())
      must(people.db:execute("DELETE FROM `user` WHERE id = ?", user.id))
      local ok, err = people.db:reload(user)
      assert.is_nil(ok)
      assert.equal("CONFLICT", err.code)
    end)
  end)
end)
