-- SPDX-License-Identifier: MIT
local support = require "support.init"
local prepare = require("support.people").prepare

local must = support.must

describe("session: SQL", function()
  local people = prepare { setup = setup, teardown = teardown, before_each = before_each, after_each = after_each }

  describe("raw SQL", function()
    it("keeps types", function()
      local rows = must(people.db:query([[
        SELECT 1 AS i, 18446744073709551615 AS big, 1.50 AS d, 'x' AS s, NULL AS n, 1e0 AS f, CAST(? AS CHAR) AS p
      ]], "é"))
      assert.same({ { i = 1, big = "18446744073709551615", d = "1.50", s = "x", f = 1, p = "é" } }, rows)
    end)

    it("binds every kind of parameter", function()
      local rows = must(people.db:query("SELECT ? + 0 AS a, ? AS b, ? IS NULL AS c, ? AS d, ? AS e",
        9007199254740993LL, "t", nil, true, 0.5))
      assert.same({ a = "9007199254740993", b = "t", c = 1, d = 1, e = 0.5 }, rows[1])
      assert.equal(2, #people.db:query("SELECT 1 AS x WHERE 1 IN ? UNION ALL SELECT 2", { 1, 2 }))
    end)

    it("tells affected rows and insert ids", function()
      local answer = must(people.db:execute("INSERT INTO `team` (id, name) VALUES (900001, 'a'), (900002, 'b')"))
      assert.equal(2, answer.affected)
    end)

    it("gives all result sets of a call", function()
      must(people.db:connection(function(conn)
        return conn:execute "CREATE PROCEDURE two_sets() BEGIN SELECT 1 AS a; SELECT 2 AS b, 3 AS c; END"
      end))
      local sets = must(people.db:call "CALL two_sets()")
      assert.same({ { a = 1 } }, sets[1])
      assert.same({ { b = 2, c = 3 } }, sets[2])
    end)

    it("returns the server's errors, raises for misuse", function()
      local rows, err, errno = people.db:query "SELEKT"
      assert.is_nil(rows)
      assert.equal("SQL", err.code)
      assert.equal(1064, errno)
      assert.matches("raw_spec.lua:%d+: the SQL has 1 placeholders",
        select(2, pcall(function() people.db:query "SELECT ?" end)))
      assert.matches("raw_spec.lua:%d+: parameter 1 is a function",
        select(2, pcall(function() people.db:query("SELECT ?", print) end)))
      local _, unknown = people.db:query { "SELECT 1", pool = "nowhere" }
      assert.matches("nowhere", unknown.message)
    end)

    it("lends a connection and takes it back clean", function()
      local id = people.db:connection(function(conn)
        must(conn:execute "SET @x = 5")
        assert.equal(5, conn:query("SELECT @x AS x")[1].x)
        return conn:query("SELECT CONNECTION_ID() AS id")[1].id
      end)
      assert.is_number(id)
      local kept
      local ok, message = pcall(function()
        people.db:connection("default", function(conn)
          kept = conn
          must(conn:execute "START TRANSACTION")
          must(conn:execute "INSERT INTO `team` (id, name) VALUES (900003, 'c')")
          error("stop", 0)
        end)
      end)
      assert.same({ false, "stop" }, { ok, message })
      assert.matches("has been given back", select(2, pcall(function() kept:query "SELECT 1" end)))
      assert.equal(0, support.eventually(function()
        local rows = must(people.db:query "SELECT COUNT(*) AS n FROM `team` WHERE id = 900003")
        return rows[1].n == 0 and 0
      end))
    end)

    it("does not keep one that has left its database", function()
      local home = must(people.db:query "SELECT DATABASE() AS name")[1].name
      for _, statement in ipairs { "USE information_schema", "/*! USE information_schema */" } do
        local id = people.db:connection(function(conn)
          must(conn:execute(statement))
          assert.equal("information_schema", conn:query("SELECT DATABASE() AS name")[1].name)
          return conn:query("SELECT CONNECTION_ID() AS id")[1].id
        end)
        local now = must(people.db:query "SELECT DATABASE() AS name, CONNECTION_ID() AS id")[1]
        assert.equal(home, now.name)
        assert.not_equal(id, now.id)
      end
    end)
  end)
end)
