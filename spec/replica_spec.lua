-- SPDX-License-Identifier: MIT
-- A pool with a replica: who answers which read, counted on the servers themselves.

local faults = require "support.faults"
local regolith = require "regolith"
local replica = require "support.replica"
local support = require "support.init"

local field, must = regolith.field, support.must
--- What names the origin of a write in a position: a domain of MariaDB, a server of MySQL.
local SOURCE = support.is_mariadb() and "0" or "[%x%-]+"

local Note = regolith.entity("note", {
  field.string "title" { required = true },
  field.uint32 "n",
  index = { by_n = { "n" } },
})
local Tag = regolith.entity("tag", { field.string "name" { required = true } })
local Name = regolith.entity("name", { field.string "name" { length = 40, unique = true } })
local Page = regolith.entity("page", {
  field.string "title" { required = true },
  field.uint32 "n",
  cache = { process = true, redis = true },
  index = { by_n = { "n", cached = true } },
})

describe("replica", function()
  local pair, orm

  setup(function()
    pair = replica.pair "replica"
    orm = pair:open { Note, Tag, Name }
  end)
  teardown(function() pair:remove() end)
  after_each(function() pair:go_on() end)

  --- What fn reads from which server.
  local function asked(of, fn)
    local counts = { primary = 0, east = 0, positions = 0 }
    of:log(function(event)
      local text = event.text:upper()
      if not text:match "^%s*SELECT" and event.op ~= "READ" then return end
      local where = event.pool == "default/east" and "east" or "primary"
      if text:find("GTID", 1, true) or text:find("_REGOLITH_LEDGER", 1, true) then
        counts.positions = counts.positions + 1
      else
        counts[where] = counts[where] + 1
      end
    end, { mysql = true })
    local ok, fault = pcall(fn)
    of:log(nil)
    must(ok, fault)
    return counts
  end

  local function counter(name, of) return (of or orm):counter("regolith_" .. name .. "_total") end

  --- A note that both servers have, and a session that wrote nothing.
  local function written(values)
    local db = orm:session()
    local note = must(db:new(Note, values or { title = "first", n = 1 }))
    must(db:flush())
    local id = note.id
    db:close()
    pair:catch_up()
    return id, orm:session()
  end

  it("answers who has written nothing: by id, many, by index, searches, counts", function()
    local id, db = written()
    local keys, selects = pair:status("primary", "Handler_read_key"), pair:status("replica", "Com_select")
    assert.same({ primary = 0, east = 6, positions = 0 }, asked(orm, function()
      assert.equal("first", must(db:get(Note, id)).title)
      db:clear()
      assert.equal("first", must(db:get_many(Note, { id }))[1].title)
      db:clear()
      assert.equal(id, must(db:all_by(Note, "by_n", 1))[1].id)
      assert.equal(id, must(db:search(Note, "n = ?", 1):one()).id)
      assert.equal(1, must(db:search(Note, "id = ?", id):count()))
      assert.same({ id }, must(db:search(Note, "id = ?", id):ids()))
    end))
    -- what the servers themselves have counted: no row was looked up on the primary
    assert.equal(keys, pair:status("primary", "Handler_read_key"))
    assert.is_true(pair:status("replica", "Com_select") >= selects + 6)
    db:close()
  end)

  it("answers nobody what he has written before it has it", function()
    pair:hold()
    local db = orm:session()
    local note = must(db:new(Note, { title = "new", n = 7 }))
    must(db:flush())
    local behind = counter "replica_behind"
    db:clear()
    local counts = asked(orm, function()
      assert.equal("new", must(db:get(Note, note.id)).title)
      assert.equal(1, must(db:search(Note, "n = 7"):count()))
    end)
    assert.equal(2, counts.primary)
    assert.equal(0, counts.east)
    assert.equal(behind + 2, counter "replica_behind")
    -- a stranger is answered by the replica, which does not have it
    local stranger = orm:session()
    assert.is_nil(stranger:get(Note, note.id))
    stranger:close()
    pair:go_on()
    pair:catch_up()
    faults.await("the replica to be read", function()
      db:clear()
      return asked(orm, function() assert.equal("new", must(db:get(Note, note.id)).title) end).east == 1
    end)
    -- what it is known to have is not asked again
    assert.same({ primary = 0, east = 1, positions = 0 }, asked(orm, function()
      db:clear()
      must(db:get(Note, note.id))
    end))
    db:close()
  end)

  it("costs a write nothing: its position comes with its answer", function()
    local db = orm:session()
    must(db:new(Note, { title = "cheap", n = 9 }))
    local counts = support.count(orm, function() must(db:flush()) end)
    assert.equal(1, counts.mysql, table.concat(counts.texts, "; "))
    assert.matches(SOURCE .. "=%d+$", must(db:token()))
    db:close()
  end)

  it("tracks tables apart, but not where a condition reads other tables", function()
    pair:hold()
    local db = orm:session()
    must(db:new(Note, { title = "held", n = 8 }))
    must(db:flush())
    local counts = asked(orm, function()
      assert.equal(0, must(db:search(Tag, "1 = 1"):count()))
      assert.equal(0, must(db:search(Tag, "id IN (SELECT n + 1000000 FROM note)"):count()))
    end)
    assert.equal(1, counts.east)
    assert.equal(1, counts.primary)
    db:close()
    pair:go_on()
  end)

  it("follows updates, deletes, raw SQL and transactions by hand", function()
    local id = written { title = "there", n = 20 }
    local writes = {
      function(db) must(db:get(Note, id)).title = "changed" must(db:flush()) end,
      function(db) must(db:execute("UPDATE note SET n = n + 1 WHERE id = ?", id)) end,
      function(db)
        must(db:connection(function(c)
          must(c:execute "BEGIN")
          must(c:execute("UPDATE note SET n = n + 1 WHERE id = ?", id))
          return must(c:execute "COMMIT")
        end))
      end,
      function(db) db:delete(must(db:get(Note, id))) must(db:flush()) end,
    }
    for i, write in ipairs(writes) do
      pair:catch_up()
      pair:hold()
      local db = orm:session { primary = false }
      write(db)
      db:clear()
      assert.equal(0, asked(orm, function() db:get(Note, id) end).east, "after write " .. i)
      assert.equal(i < 4, db:get(Note, id) ~= nil)
      assert.is_string(db:token())
      db:close()
      pair:go_on()
    end
    pair:catch_up()
  end)

  it("is not asked about writes that changed nothing for long", function()
    local id, db = written { title = "same", n = 30 }
    must(db:execute("UPDATE note SET n = 30 WHERE id = ?", id)) -- no position comes of it
    local counts = asked(orm, function() must(db:get(Note, id)) end)
    assert.equal(1, counts.east + counts.primary)
    faults.await("the replica to be read", function()
      db:clear()
      return asked(orm, function() must(db:get(Note, id)) end).east == 1
    end)
    db:close()
  end)

  it("is passed over with primary = true, and for what is read for a write or again", function()
    local id = written { title = "mine", n = 40 }
    local db = orm:session { primary = true }
    assert.equal(0, asked(orm, function() must(db:get(Note, id)) end).east)
    db:close()
    db = orm:session()
    local note
    assert.equal(1, asked(orm, function() note = must(db:get(Note, id)) end).east)
    assert.equal(0, asked(orm, function() must(db:reload(note)) end).east)
    db:close()
  end)

  it("never decides a write: compare-and-set and upserts go by the primary", function()
    local id = written { title = "cas", n = 41 }
    pair:catch_up()
    pair:hold()
    local other = orm:session()
    must(other:update(must(other:get(Note, id)), { n = 42 }))
    must(other:insert_if_missing(Name, { name = "taken" }))
    local db = orm:session()
    local note = must(db:get(Note, id)) -- the replica's
    assert.equal(41, note.n)
    local answer = must(db:update(note, { n = 50 }, { cas = "changes" }))
    assert.is_true(answer.conflict)
    assert.equal(42, answer.row.n)
    local made = must(db:read_modify_write(note, function(it) return { n = it.n + 1 } end))
    assert.is_true(made.applied)
    assert.equal(43, note.n)
    local name, new = db:insert_if_missing(Name, { name = "taken" })
    assert.equal("taken", must(name).name)
    assert.is_false(new)
    other:close()
    db:close()
  end)

  it("is not read within a transaction, and after it only with what it wrote", function()
    local id = written { title = "tx", n = 43 }
    local db = orm:session()
    assert.equal(0, asked(orm, function()
      must(db:transaction(function()
        must(db:get(Note, id))
        must(db:all_by(Note, "by_n", 43))
        must(db:search(Note, "n = 43"):count())
        return true
      end))
    end).east)
    pair:catch_up()
    pair:hold()
    must(db:transaction(function()
      must(db:get(Note, id)).n = 44
      must(db:flush())
      must(db:new(Name, { name = "tx" }))
      return true
    end))
    assert.matches("note|" .. SOURCE .. "=%d+", must(db:token()))
    assert.matches("name|" .. SOURCE .. "=%d+", db:token())
    db:clear()
    assert.equal(0, asked(orm, function()
      assert.equal(44, must(db:get(Note, id)).n)
      must(db:search(Name, "1 = 1"):count())
    end).east)
    local before = must(orm:session())
    must(before:transaction(function()
      must(before:get(Note, id)).n = 45
      return nil, "no"
    end) == nil)
    assert.is_nil(before:token()) -- what was rolled back is not waited for
    before:close()
    db:close()
  end)

  describe("token", function()
    it("carries what was written to the next request, and to other processes", function()
      local other = pair:open({ Note, Tag, Name }, nil, { lazy = true })
      must(other:session():search(Tag, "1 = 1"):count()) -- it looks how far the replica is
      pair:hold()
      local db = orm:session()
      assert.is_nil(db:token())
      local note = must(db:new(Note, { title = "posted", n = 50 }))
      must(db:flush())
      local token = must(db:token())
      assert.matches("^rg1;default|note|" .. SOURCE .. "=%d+$", token)
      db:close()

      local next_one = other:session { token = token }
      local counts = asked(other, function()
        assert.equal("posted", must(next_one:get(Note, note.id)).title)
        assert.equal(0, must(next_one:search(Tag, "1 = 1"):count()))
      end)
      assert.equal(1, counts.primary)
      assert.equal(1, counts.east)
      assert.equal(token, next_one:token())
      next_one:close()

      local third = other:session()
      assert.is_true(third:follow(token))
      assert.equal("posted", must(third:get(Note, note.id)).title)
      third:close()
      pair:go_on()
    end)

    it("keeps the later of two positions", function()
      local db = orm:session { token = "rg1;default|note|0=5;nowhere|x|0=1;default|unknown|9=9" }
      assert.equal("rg1;default|note|0=5;default|*|9=9", db:token())
      db:follow "rg1;default|note|0=7"
      db:follow "rg1;default|note|0=6"
      assert.equal("rg1;default|note|0=7;default|*|9=9", db:token())
      db:close()
    end)

    it("that is none has the primary answer everything, and is counted", function()
      local id = written { title = "safe", n = 60 }
      local refused = counter "tokens_refused"
      local bad = { "", "rg1", "rg1;", "rg1;default", "rg1;default|note|", "rg1;default|note|0", "rg1;default|note|0=x",
        "rg1;default|note|0=99999999999999999999999", "rg2;default|note|0=1", "rg1;default|note|a b=1", "\0",
        "rg1;default|note|q5", ("x"):rep(100000) }
      for i, token in ipairs(bad) do
        local db = orm:session { token = token }
        assert.equal(0, asked(orm, function() must(db:get(Note, id)) end).east, token:sub(1, 40))
        assert.equal("rg1;!", db:token())
        assert.equal(refused + i, counter "tokens_refused")
        db:close()
      end
      assert.error_matches(function() orm:session { token = 5 } end, "option 'token' must be a string")
    end)

    it("stays short whatever was written", function()
      local db = orm:session()
      for i = 1, 300 do db:follow(string.format("rg1;default|*|%d=%d", i, i)) end
      assert.is_true(#db:token() < 2048)
      db:close()
    end)
  end)

  it("is passed over when it is gone, and read again when it is back", function()
    local id = written { title = "alive", n = 70 }
    pair.replica:kill "mysql"
    for _ = 1, 3 do
      local db = orm:session()
      assert.equal("alive", must(db:get(Note, id)).title)
      db:close()
    end
    assert.is_true(counter "replica_skipped" + counter "replica_failed" >= 1)
    local down
    for _, server in ipairs(must(orm:health())) do
      if server.kind == "replica" then down = server end
    end
    assert.equal("default/east", down.name)
    assert.is_false(down.ok)
    pair.replica:start()
    faults.await("the replica to be read", function()
      local db = orm:session()
      local counts = asked(orm, function() assert.equal("alive", must(db:get(Note, id)).title) end)
      db:close()
      return counts.east == 1
    end)
  end)

  it("is asked no more about a table whose write has an unknown outcome", function()
    local id = written { title = "unknown", n = 75 }
    local db = orm:session { timeout_ms = 1500 }
    pair.primary:stop "mysql"
    local ok, fault = db:execute("UPDATE note SET n = 76 WHERE id = ?", id)
    pair.primary:continue "mysql"
    assert.is_nil(ok)
    assert.equal("COMMIT_UNKNOWN", fault.code)
    assert.matches("!", must(db:token()))
    local later = orm:session { token = db:token() }
    for _ = 1, 2 do
      assert.equal(0, asked(orm, function() must(later:get(Note, id)) end).east)
      later:clear()
    end
    later:close()
    db:close()
  end)

  it("goes on answering while the primary is down, who needs no more than it has", function()
    local id = written { title = "up", n = 77 }
    local token
    do
      local db = orm:session()
      must(db:get(Note, id)).n = 78
      must(db:flush())
      token = must(db:token())
      db:close()
      pair:catch_up()
    end
    local ahead = token:gsub("=(%d+)$", function(n) return "=" .. tonumber(n) + 1000 end)
    pair.primary:kill "mysql"
    local ok, fault = pcall(function()
      for _, with in ipairs { false, token } do
        local db = orm:session { token = with or nil }
        assert.equal(78, must(db:get(Note, id)).n)
        db:close()
      end
      local db = orm:session { token = ahead }
      local note, why = db:get(Note, id)
      assert.is_nil(note)
      assert.equal("UNAVAILABLE", why.code)
      db:close()
    end)
    pair.primary:start()
    must(ok, fault)
    faults.await("the primary", function()
      local db = orm:session { primary = true }
      local note = db:get(Note, id)
      db:close()
      return note
    end)
    pair.sql.primary:close()
    pair:reconnect "primary"
    pair:catch_up()
  end)

  it("is cut short when it hangs: the primary answers in time", function()
    local id = written { title = "hung", n = 80 }
    local hurried = pair:open({ Note, Tag, Name }, nil, { timeout_ms = 3000 })
    local db = hurried:session()
    must(db:get(Note, id))
    db:clear()
    pair.replica:stop "mysql"
    local ok, fault = pcall(function()
      assert.equal("hung", must(db:get(Note, id)).title)
      assert.equal(1, counter("replica_failed", hurried))
    end)
    pair.replica:continue "mysql"
    must(ok, fault)
    db:close()
  end)

  it("is passed over while it lags too far behind the primary", function()
    local strict = pair:open({ Note, Tag, Name }, { max_replica_lag_ms = 200 })
    local id = written { title = "lag", n = 90 }
    pair:hold()
    local function east()
      local db = strict:session()
      local counts = asked(strict, function() must(db:get(Note, id)) end)
      db:close()
      return counts.east
    end
    local writer = orm:session()
    faults.await("the replica to be passed over", function()
      must(writer:execute("UPDATE note SET n = n + 1 WHERE id = ?", id))
      return east() == 0
    end)
    assert.is_true(counter("replica_skipped", strict) >= 1)
    pair:go_on()
    pair:catch_up()
    faults.await("the replica to be read again", function() return east() == 1 end)
    writer:close()
  end)

  describe("and caches", function()
    local cached
    setup(function()
      cached = pair:open({ Page }, nil, { redis = pair.primary:redis_url() })
    end)

    it("never fills a cache: what may be cached comes from the primary", function()
      local db = cached:session()
      local page = must(db:new(Page, { title = "old", n = 1 }))
      must(db:flush())
      db:close()
      pair:catch_up()
      db = cached:session()
      must(db:search(Page, "n = 1"):one())
      db:close()
      local reads = counter("replica_reads", cached)
      pair:hold()
      db = cached:session()
      must(db:get(Page, page.id)).title = "new"
      must(db:flush())
      db:close()
      must(cached:invalidate(Page))
      for _ = 1, 3 do -- strangers all: nothing but the caches is between them and the old row
        local stranger = cached:session()
        assert.equal("new", must(stranger:get(Page, page.id)).title)
        assert.equal("new", must(stranger:all_by(Page, "by_n", 1))[1].title)
        stranger:close()
      end
      assert.equal(reads, counter("replica_reads", cached))
      local stranger = cached:session()
      assert.equal("old", must(stranger:search(Page, "n = 1"):one()).title) -- filled nothing:
      stranger:close()
      stranger = cached:session()
      assert.equal("new", must(stranger:get(Page, page.id)).title)
      stranger:close()
      assert.equal(reads + 1, counter("replica_reads", cached))
      pair:go_on()
    end)

    it("waits for what was queued to be applied there", function()
      local db = cached:session()
      must(db:new(Page, { title = "queued", n = 77 }))
      must(db:flush_async())
      local token = db:token()
      assert.matches("^rg1;default|page|q%d+%-%d+$", token)
      assert.equal(0, asked(cached, function() must(db:search(Page, "n = 77"):count()) end).east)
      pair:catch_up()
      pair:hold()
      support.drain(cached)
      assert.equal(1, must(db:search(Page, "n = 77"):count())) -- from the primary: the replica lacks it
      pair:go_on()
      pair:catch_up()
      faults.await("the replica to be read", function()
        return asked(cached, function() assert.equal(1, must(db:search(Page, "n = 77"):count())) end).east == 1
      end)
      db:close()
    end)
  end)
end)
