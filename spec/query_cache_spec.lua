-- SPDX-License-Identifier: MIT
local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local VARIANTS = {
  ["rows cached everywhere"] = { process = true, redis = true, queries = true },
  ["rows cached nowhere"] = { queries = true },
  ["rows cached in Redis"] = { redis = true, queries = true },
}

local function define(cache)
  local Team = regolith.entity("team", { field.string "name" { required = true }, field.uint32 "size", cache = cache })
  return Team, regolith.entity("player", {
    field.string "name" { required = true }, field.uint32 "score", field.ref "team" { Team }, cache = cache,
  })
end

for label, cache in pairs(VARIANTS) do
  describe("a cached search, " .. label, function()
    local world, orm, db
    local Team, Player = define(cache)

    setup(function()
      world = support.world()
      orm = world:open { Team, Player }
      if cache.process then
        faults.await("coherence", function()
          orm:session():get(Player, 1)
          return orm:stats().coherent
        end)
      end
    end)
    teardown(function() world:close() end)
    before_each(function() db = orm:session() end)
    after_each(function()
      db:close()
      local admin = orm:session()
      must(admin:execute "DELETE FROM player")
      must(admin:execute "DELETE FROM team")
      must(orm:invalidate(Player))
      must(orm:invalidate(Team))
      admin:close()
    end)

    local function players(n, values)
      local list = {}
      for i = 1, n do
        list[i] = db:new(Player, { name = "p" .. i, score = i })
        for key, v in pairs(values or {}) do list[i][key] = v end
      end
      must(db:flush())
      return list
    end

    local function above(score)
      return orm:session():search(Player, "score > ? ORDER BY score DESC", score):cached(60)
    end
    local function names(list)
      local out = {}
      for i, e in ipairs(list) do out[i] = e.name end
      return table.concat(out, " ")
    end

    --- The answer, and that it took no SQL once it was there.
    local function settles(fn)
      fn()
      faults.await("an answer without SQL", function() return support.count(orm, fn).mysql == 0 end)
    end

    it("asks MySQL once for as long as nothing is written", function()
      players(5)
      settles(function() assert.equal("p5 p4", names(must(above(3):all()))) end)
      settles(function() assert.equal(2, must(above(3):count())) end)
      settles(function() assert.equal(2, #must(above(3):ids())) end)
      settles(function() assert.equal("p4", names(must(above(0):page(2, 1)))) end)
      settles(function() assert.equal("p5", must(above(0):one()).name) end)
      settles(function()
        local list, total = above(0):page_with_count(1, 2)
        assert.equal("p5 p4", names(list))
        assert.equal(5, total)
      end)
      settles(function() assert.equal(0, #must(above(100):all())) end)
    end)

    it("tells searches apart by text, values, order, page and kind", function()
      players(4)
      local function all(where, ...) return names(must(orm:session():search(Player, where, ...):cached(60):all())) end
      for _ = 1, 2 do
        assert.equal("p1", all("score = ?", 1))
        assert.equal("p2", all("score = ?", 2))
        assert.equal("p1", all("name = ?", "p1"))
        assert.equal("", all("name = ?", "1"))
        assert.equal("p1 p2 p3 p4", all "1 = 1 ORDER BY score")
        assert.equal("p4 p3 p2 p1", all "1 = 1 ORDER BY score DESC")
        assert.equal("p2 p1", all("score IN (?) ORDER BY score DESC", { 1, 2 }))
        for i = 1, 4 do assert.equal("p" .. 5 - i, names(must(above(0):page(i, 1)))) end
      end
    end)

    it("sees every write at once: insert, update, delete, rollback", function()
      local list = players(3)
      settles(function() assert.equal("p3 p2", names(must(above(1):all()))) end)
      list[1].score = 10
      must(db:flush())
      assert.equal("p1 p3 p2", names(must(above(1):all())))
      settles(function() assert.equal(3, must(above(1):count())) end)
      db:delete(list[2])
      db:new(Player, { name = "p9", score = 9 })
      must(db:flush())
      assert.equal("p1 p9 p3", names(must(above(1):all())))
      assert.equal(3, must(above(1):count()))
      settles(function() assert.equal("p1 p9 p3", names(must(above(1):all()))) end)
      local bad = orm:session()
      bad:new(Player, { name = "twin", score = 50 }).id = list[1].id
      assert.is_nil((bad:flush()))
      bad:close()
      settles(function() assert.equal("p1 p9 p3", names(must(above(1):all()))) end)
    end)

    it("sees what was deleted and inserted under the same name, and entities as they are in the session", function()
      local list = players(2)
      settles(function() assert.equal(2, #must(above(0):all())) end)
      local session = orm:session()
      local mine = session:get(Player, list[1].id)
      mine.name = "unsaved"
      local found = must(session:search(Player, "score > 0 ORDER BY score"):cached(60):all())
      assert.equal(mine, found[1])
      assert.equal("unsaved", found[1].name)
      session:close()
    end)

    it("depends on every table that it names", function()
      local red = db:new(Team, { name = "red", size = 1 })
      local list = players(2, { team = red })
      local function found()
        return names(must(orm:session():search(Player, "team_id IN (SELECT id FROM team WHERE size > ?) ORDER BY id", 0)
          :cached(60, { Team }):all()))
      end
      settles(function() assert.equal("p1 p2", found()) end)
      red.size = 0
      must(db:flush())
      assert.equal("", found())
      red.size = 2
      must(db:flush())
      assert.equal("p1 p2", found())
      settles(function() assert.equal("p1 p2", found()) end)
      list[1].team = nil
      must(db:flush())
      assert.equal("p2", found())
    end)

    it("sees queued rows when they are applied, neither before nor later", function()
      players(1)
      settles(function() assert.equal(1, must(above(0):count())) end)
      db:new(Player, { name = "queued", score = 7 })
      must(db:flush_async())
      assert.equal(1, must(above(0):count()))
      support.drain(orm)
      assert.equal(2, must(above(0):count()))
      assert.equal("queued p1", names(must(above(0):all())))
    end)

    it("is told by other ORMs, and by invalidate", function()
      local other = world:open({ Team, Player }, { schema = false })
      players(1)
      settles(function() assert.equal(1, must(above(0):count())) end)
      local session = other:session()
      local extra = session:new(Player, { name = "extra", score = 3 })
      must(session:flush())
      faults.await("the news of a row", function() return must(above(0):count()) == 2 end)
      if not cache.process then assert.equal(2, must(above(0):count())) end
      settles(function() assert.equal(2, must(above(0):count())) end)
      must(session:execute("DELETE FROM player WHERE id = ?", extra.id))
      must(other:invalidate(Player, { extra.id }))
      faults.await("the news of an invalidation", function() return must(above(0):count()) == 1 end)
      session:close()
      world:shut(other)
    end)

    it("is not served while a writer that died may still commit, and healed by who waits for it", function()
      players(2)
      settles(function() assert.equal(2, must(above(0):count())) end)
      local raw = faults.redis()
      local keys = must(raw:call("KEYS", "{" .. world.name .. "}:d:*"))
      assert.is_true(#keys >= 1)
      local time = must(raw:call "TIME")
      local now = tonumber(time[1]) * 1000
      local function le(v, n)
        local bytes = {}
        for i = 1, n do
          bytes[i] = string.char(v % 256)
          v = math.floor(v / 256)
        end
        return table.concat(bytes)
      end
      local epoch = must(raw:call("GET", "{" .. world.name .. "}:ep"))
      local function mark(deadline)
        for _, key in ipairs(keys) do
          local old = raw:call("GET", key)
          raw:call("SET", key, "M" .. epoch .. "\0" .. le(1, 2) .. ("x"):rep(16) .. le(deadline, 8) .. (old or ""))
        end
      end
      mark(now + 600000)
      faults.await("the news of a mark", function()
        return support.count(orm, function() must(above(0):count()) end).mysql > 0
      end)
      for _ = 1, 3 do
        assert.equal(1, support.count(orm, function() assert.equal(2, must(above(0):count())) end).mysql)
      end
      mark(now - 1000)
      faults.await("a healing search", function()
        local counts = support.count(orm, function() assert.equal(2, must(above(0):count())) end)
        return table.concat(counts.texts, "\n"):find "SERIALIZABLE"
      end)
      settles(function() assert.equal(2, must(above(0):count())) end)
      must(db:new(Player, { name = "p3", score = 3 }))
      must(db:flush())
      assert.equal(3, must(above(0):count()))
      raw:close()
    end)

    it("refuses what it cannot promise", function()
      local Other = regolith.entity("other", { field.uint32 "n" })
      local orm2 = world:open({ Team, Player, Other }, { schema = false })
      local session = orm2:session()
      local function refuses(pattern, fn)
        local ok, why = pcall(fn)
        assert.is_false(ok)
        assert.matches(pattern, why)
        assert.matches("query_cache_spec", why)
      end
      refuses("needs cache = { queries = true }", function() return session:search(Other, "n = 1"):cached(60), 1 end)
      refuses("needs cache = { queries = true }", function()
        return session:search(Player, "1"):cached(60, { Other }), 1
      end)
      refuses("name the entities", function()
        return session:search(Player, "team_id IN (SELECT id FROM team)"):cached(60), 1
      end)
      refuses("a number of seconds", function() return session:search(Player, "1"):cached(0), 1 end)
      assert.equal(0, must(session:search(Player, "name = 'select'"):cached(60):count()))
      session:close()
      world:shut(orm2)
    end)
  end)
end

describe("an entity without cached searches", function()
  local world
  setup(function() world = support.world() end)
  teardown(function() world:close() end)

  it("pays nothing for them when it is written", function()
    local Plain = regolith.entity("plain", { field.uint32 "n" })
    local Rows = regolith.entity("rows", { field.uint32 "n", cache = { redis = true } })
    local Searched = regolith.entity("searched", { field.uint32 "n", cache = { redis = true, queries = true } })
    local orm = world:open { Plain, Rows, Searched }
    local function cost(entity)
      local db = orm:session()
      must(db:new(entity, { n = 1 }))
      must(db:flush())
      must(db:new(entity, { n = 2 }))
      local counts = support.count(orm, function() must(db:flush()) end)
      db:close()
      return counts
    end
    assert.equal(0, cost(Plain).redis)
    for _, entity in ipairs { Rows, Searched } do -- MARK and PUBLISH; the same two, with one key more
      faults.await("two commands", function() return cost(entity).redis == 2 end) -- a new connection asks one more
    end
    assert.equal(0, #faults.redis():call("KEYS", "{" .. world.name .. "}:d:*"))
  end)
end)
