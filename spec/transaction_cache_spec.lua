-- SPDX-License-Identifier: MIT
-- What caches serve while transactions are under way, and when something dies between COMMIT and the
-- news of it: never what the database has replaced, never what is not committed.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local field, must = regolith.field, support.must

--- No answer may be older than a lost channel takes to be noticed, by the guide; and a busy machine.
local BOUND_S = 5

local function note_entity(more)
  return regolith.entity("note", {
    field.string "title" { length = 80 },
    field.int32 "n",
    unique = { title = { "title" } },
    index = { by_n = { "n", cached = true } },
    cache = { process = true, redis = true, queries = true, outage = more },
  })
end

describe("caches and transactions", function()
  local Note = note_entity()
  local Tag = regolith.entity("tag", {
    field.ref "note" { Note },
    index = { of_note = { "note", cached = true } },
    cache = { process = true, redis = true },
  })
  local world, orm, db, others, proxy

  setup(function()
    world = support.world()
    orm = world:open({ Note, Tag }, { callbacks = { told = function() end } })
    proxy = faults.proxy()
  end)
  teardown(function()
    proxy:stop()
    world:close()
  end)
  before_each(function()
    proxy:say "pass"
    db, others = orm:session(), orm:session()
  end)
  after_each(function()
    must(db:execute "DELETE FROM tag")
    must(db:execute "DELETE FROM note")
    must(orm:invalidate(Tag))
    must(orm:invalidate(Note))
    db:close()
    others:close()
    support.no_transactions(world)
  end)

  local function note(title, n) return must(db:new(Note, { title = title, n = n or 0 })) end

  --- A stored note that every cache knows.
  local function known(title, n)
    local a = note(title, n)
    must(db:flush())
    must(others:get(Note, a.id))
    must(others:all_by(Note, "by_n", n))
    must(others:by(Note, "title", title))
    others:clear()
    return a
  end

  local function say(word) proxy:say(word) end

  --- How often the proxy has held something.
  local function held() return select(2, proxy:output():gsub("held", "")) end

  --- A process whose words to MySQL go by way of the proxy.
  local function spawn(...)
    return faults.spawn("noter", {
      REGOLITH_MYSQL_URL = proxy:url(world.name),
      REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name,
    }, ...)
  end

  --- What a process that knows nothing is told by Redis and MySQL.
  local function elsewhere(fn)
    local own = world:open({ Note }, { schema = false })
    local session = own:session()
    local answers = { fn(session) }
    session:close()
    world:shut(own)
    return unpack(answers)
  end

  it("a transaction sees its own rows although others have filled the caches since (37)", function()
    local a = known("old", 1)
    db:transaction(function()
      a.n, a.title = 2, "new"
      must(db:flush())
      assert.equal(1, others:get(Note, a.id).n) -- fills what MARK has not touched yet
      assert.equal(1, #must(others:all_by(Note, "by_n", 1)))
      assert.equal(1, #must(others:search(Note, "n = 1"):cached(60):all()))
      db:clear()
      assert.equal(2, db:get(Note, a.id).n)
      assert.equal(1, #must(db:all_by(Note, "by_n", 2)))
      assert.equal(0, #must(db:all_by(Note, "by_n", 1)))
      assert.equal(a.id, db:by(Note, "title", "new").id)
      assert.is_nil((db:by(Note, "title", "old")))
      assert.equal(1, #must(db:search(Note, "n = 2"):cached(60):all()))
      assert.equal(0, #must(db:search(Note, "n = 1"):cached(60):all()))
    end)
    others:clear()
    assert.equal(2, others:get(Note, a.id).n)
    assert.equal(0, #must(others:search(Note, "n = 1"):cached(60):all()))
  end)

  it("counts and relations are a transaction's own until it has committed (36)", function()
    local a, b = known("a", 1), known("b", 2)
    local tag = must(db:new(Tag, { note = a }))
    must(db:flush())
    local function seen(session)
      session:clear()
      return {
        must(session:get(Tag, tag.id)).note.title, #must(session:all_by(Tag, "of_note", b)),
        must(session:search(Note, "n > 10"):count()), must(session:search(Note, "n > 10"):cached(60):count()),
      }
    end
    local before, after = { "a", 0, 0, 0 }, { "new", 1, 1, 1 }
    assert.same(before, seen(others))
    for _, fails in ipairs { true, false } do
      db:transaction(function()
        local mine = must(db:get(Note, b.id))
        mine.n, mine.title = 11, "new"
        must(db:get(Tag, tag.id)).note = mine
        must(db:flush())
        assert.same(after, seen(db))
        assert.same(before, seen(others))
        return not fails or nil, "rolled back"
      end)
      assert.same(fails and before or after, seen(others))
      assert.same(fails and before or after, seen(db))
    end
  end)

  describe("refuse what was read before a commit and stored after it (38):", function()
    --- Has another process read while fn commits; its two answers, and what Redis has afterwards.
    local function race(kind, id, fn)
      local reader, before = spawn("read", kind, id), held()
      reader:await "ready"
      say "hold execute"
      support.redis("SET", "{" .. world.name .. "}:go", "1")
      faults.await("its statement to be answered", function() return held() > before end)
      fn()
      say "pass"
      local first, second = reader:await "first (%S+)", reader:await "second (%S+)"
      assert.is_true((reader:wait()))
      support.redis("DEL", "{" .. world.name .. "}:go")
      return first, second
    end

    it("a row", function()
      local a = note("row", 1)
      must(db:flush())
      must(orm:invalidate(Note))
      local first, second = race("row", a.id, function()
        db:transaction(function() a.n = 2 end)
      end)
      assert.same({ "1", "2" }, { first, second })
      assert.equal(2, elsewhere(function(session) return session:get(Note, a.id).n end))
    end)

    it("a list", function()
      local a = note("list", 1)
      must(db:flush())
      must(orm:invalidate(Note))
      local first, second = race("list", a.id, function()
        db:transaction(function()
          a.n = 2
          note("another", 1)
          note("and another", 1)
        end)
      end)
      assert.is_true(first == "1" or first == "2", first)
      assert.equal("2", second)
      assert.equal(2, elsewhere(function(session) return #must(session:all_by(Note, "by_n", 1)) end))
    end)

    it("that there is no such row", function()
      local a = note("row", 1)
      must(orm:invalidate(Note))
      local first, second = race("row", a.id, function() db:transaction(function() assert(db:is_new(a)) end) end)
      assert.same({ "nil", "1" }, { first, second })
      assert.equal(1, elsewhere(function(session) return session:get(Note, a.id).n end))
    end)

    it("that a unique value is nobody's", function()
      local a = note("other", 1)
      must(db:flush())
      must(orm:invalidate(Note))
      local first, second = race("unique", a.id, function() db:transaction(function() a.title = "kept" end) end)
      local id = string.format("%.0f", a.id)
      assert.is_true(first == "nil" or first == id, first)
      assert.equal(id, second)
      assert.equal(a.id, elsewhere(function(session) return session:by(Note, "title", "kept").id end))
    end)
  end)

  describe("whose process is killed between COMMIT and what follows (40):", function()
    local writer

    --- Leaves things as a process does that dies when the server has committed.
    local function die(id)
      local before = held()
      say "hold"
      writer = spawn("commit", id)
      faults.await("its COMMIT to be answered", function() return held() > before end)
      writer:signal "KILL"
      faults.await("its end", function() return not writer:running() end)
      say "pass"
    end
    after_each(function()
      os.remove(writer.path)
      must(db:execute "DELETE FROM _regolith_callbacks")
    end)

    it("everybody reads what is committed", function()
      local a = known("a", 1)
      must(others:search(Note, "n = 1"):cached(60):all())
      die(a.id)
      local function seen(session)
        return {
          session:get(Note, a.id).n, #must(session:all_by(Note, "by_n", 1)), #must(session:all_by(Note, "by_n", 2)),
          #must(session:search(Note, "n = 1"):cached(60):all()),
        }
      end
      -- of the row, of the lists and of the table each is a message of its own
      faults.await("the news of the marks", function()
        local now = seen(orm:session())
        return now[1] == 2 and now[2] == 0 and now[3] == 1 and now[4] == 0
      end, BOUND_S)
      local function check(session) assert.same({ 2, 0, 1, 0 }, seen(session)) end
      for _ = 1, 3 do
        check(orm:session())
        elsewhere(check)
      end
    end)

    it("no callback has run, and durable ones run all the same", function()
      local a, ran = known("a", 1), {}
      die(a.id)
      assert.is_nil(writer:output():find "callback")
      assert.is_nil(writer:output():find "compensation")
      local own = world:open({ Note }, { schema = false,
        callbacks = { told = function(payload) ran[#ran + 1] = payload.n end } })
      local worker = must(own:callback_worker())
      repeat until must(worker:step()) == 0
      assert.same({ 2 }, ran)
      worker:close()
      world:shut(own)
    end)
  end)

  describe("every kind of write shows at its commit, to its own tenant (42):", function()
    local a, b, doomed, tenant

    setup(function() tenant = world:open({ Note }, { schema = false, prefix = world.name .. "_2" }) end)
    teardown(function() world:shut(tenant) end)
    before_each(function() must(tenant:invalidate(Note)) end)

    local KINDS = {
      ["a change"] = function() a.n = 5 end,
      ["a change at once"] = function() must(db:update(a, { n = 5 })) end,
      ["an increment"] = function() must(db:update(a, { n = regolith.increment(4) })) end,
      ["a conditional change"] = function()
        assert.is_true(must(db:update(a, { n = 5 }, { cas = { "n" } })).applied)
      end,
      ["many conditional changes"] = function() must(db:update_all { { a, { n = 5 }, cas = { n = 1 } } }) end,
      ["an upsert"] = function() must(db:upsert(Note, { title = "a", n = 5 }, { by = "title" })) end,
      ["a deletion and a new row"] = function()
        db:delete(doomed)
        note("new", 5)
      end,
      ["a conditional deletion"] = function()
        assert.is_true(must(db:delete(doomed, { cas = { n = 1 } })).applied)
        note("new", 5)
      end,
      ["many deletions, many new rows"] = function()
        must(db:delete_all(Note, { doomed.id }))
        must(db:insert_all(Note, { { title = "new", n = 5 } }))
      end,
      ["raw SQL and what it invalidates"] = function(tx)
        must(db:execute("UPDATE note SET n = 5 WHERE id = ?", a.id))
        tx:commit(function() must(orm:invalidate(Note)) end)
      end,
    }

    --- What a session sees: n of both rows, and what searches and lists of n = 1 and n = 5 have.
    local function seen(session)
      session:clear()
      local function n(e)
        local found = session:get(Note, e.id)
        return found and found.n or 0
      end
      return {
        n(a) + n(doomed), #must(session:all_by(Note, "by_n", 1)), #must(session:all_by(Note, "by_n", 5)),
        #must(session:search(Note, "n = 1"):cached(60):all()), must(session:search(Note, "n = 5"):cached(60):count()),
        n(b),
      }
    end

    for kind, write in pairs(KINDS) do
      it(kind, function()
        a, doomed, b = note("a", 1), note("doomed", 1), note("b", 9)
        must(db:flush())
        local far = tenant:session()
        assert.same({ 2, 2, 0, 2, 0, 9 }, seen(others))
        assert.same({ 2, 2, 0, 2, 0, 9 }, seen(far))
        for _, fails in ipairs { true, false } do
          db:transaction(function(tx)
            write(tx)
            must(db:flush())
            assert.same({ 2, 2, 0, 2, 0, 9 }, seen(others))
            return not fails or nil, "rolled back"
          end)
          if fails then assert.same({ 2, 2, 0, 2, 0, 9 }, seen(others)) end
        end
        local after = seen(others)
        assert.is_true(after[1] == 6 or after[1] == 1, kind)
        assert.same({ 1, 1, 1, 1, 9 }, { unpack(after, 2) })
        assert.same(after, (elsewhere(seen)))
        -- another tenant has caches of its own, that are not told
        local counts = support.count(tenant, function() assert.equal(1, far:get(Note, a.id).n) end)
        assert.equal(0, counts.mysql)
        far:close()
      end)
    end

    it("two entities on one table are refused", function()
      local Other = regolith.entity("other", { field.int32 "n", table = "note", cache = { redis = true } })
      local none, e = regolith.open(world:config { Note, Other })
      assert.is_nil(none)
      assert.equal("CONFIG", e.code)
      assert.matches("note", e.message)
    end)
  end)

  describe("another process with its own tier (43)", function()
    local near, redis

    before_each(function()
      near, redis = world:open({ Note }, { schema = false }), faults.redis()
    end)
    after_each(function()
      redis:close()
      world:shut(near)
    end)

    local function n_of(id) return near:session():get(Note, id).n end

    local function warm(id)
      faults.await("answers from the process cache", function()
        local counts = support.count(near, function() n_of(id) end)
        return counts.redis + counts.mysql == 0 and near:stats().coherent
      end)
    end

    it("reads what was committed while the news is under way, and never again what was before", function()
      local a = known("a", 1)
      warm(a.id)
      local before = held()
      say "hold"
      local writer = spawn("commit", a.id)
      faults.await("its COMMIT to be answered", function() return held() > before end)
      faults.await("the news of a mark", function() return n_of(a.id) == 2 end, BOUND_S)
      for _ = 1, 20 do assert.equal(2, n_of(a.id)) end
      say "pass"
      for _ = 1, 20 do assert.equal(2, n_of(a.id)) end
      local ok, text = writer:wait()
      assert.is_true(ok, text)
      assert.matches("callback\ncommitted", text)
      warm(a.id)
      assert.equal(2, n_of(a.id))
    end)

    it("converges when its channel was cut, and has dropped what is older", function()
      local a = known("a", 1)
      for round = 2, 4 do
        warm(a.id)
        assert.equal(round - 1, n_of(a.id))
        local clears = near:counter "regolith_process_cache_clears_total"
        redis:call("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
        must(db:transaction(function()
          a.n = round
          return true
        end))
        faults.await("the news after the channel was cut", function() return n_of(a.id) == round end, BOUND_S)
        warm(a.id)
        assert.equal(round, n_of(a.id))
        assert.is_true(near:counter "regolith_process_cache_clears_total" > clears)
      end
    end)
  end)
end)

describe("a transaction that ends while Redis is away", function()
  local servers

  setup(function() servers = faults.servers "txcache" end)
  teardown(function() servers:remove() end)

  it("is a success all the same when outages are allowed, and is read everywhere (40)", function()
    local Note = note_entity "available"
    local orm, near = servers:open { Note }, servers:open { Note }
    local db, ran = orm:session(), {}
    local a = must(db:new(Note, { title = "a", n = 1 }))
    must(db:flush())
    faults.await("answers from the process cache", function()
      return support.count(near, function() near:session():get(Note, a.id) end).mysql == 0
    end)
    must(db:transaction(function(tx)
      a.n = 2
      tx:commit(function() ran[#ran + 1] = "commit" end)
      tx:compensate(function() ran[#ran + 1] = "compensate" end)
      must(db:flush())
      servers:kill "redis"
      return true
    end))
    assert.same({ "commit" }, ran)
    assert.equal("committed", db:outcome().state)
    faults.await("the news of an outage", function() return near:session():get(Note, a.id).n == 2 end, BOUND_S)
    servers:start()
    for _ = 1, 10 do
      local reader = near:session()
      assert.equal(2, reader:get(Note, a.id).n)
      assert.equal(0, #must(reader:all_by(Note, "by_n", 1)))
      faults.pause(30)
    end
    local later = servers:open { Note }
    assert.equal(2, later:session():get(Note, a.id).n)
  end)
end)
