-- SPDX-License-Identifier: MIT
local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local Person = regolith.entity("person", {
  field.string "name" { required = true, unique = true },
  field.uint32 "n",
  field.binary "key" { length = 8, nullable = true },
  field.decimal "credit" { nullable = true },
  field.json "tags",
  field.set "rights" { "read", "write" },
  field.string "secret" { sensitive = true, nullable = true },
  cache = { redis = true },
  events = { people = true, gone = { "delete" }, names = { "insert", "update", fields = { "name" } } },
})

describe("events", function()
  local world, orm, db, redis

  setup(function()
    world = support.world()
    orm = world:open { Person }
    redis = faults.redis()
  end)
  teardown(function()
    redis:close()
    world:close()
  end)
  before_each(function() db = orm:session() end)
  after_each(function()
    db:close()
    support.drain(orm)
    must(orm:drop "all")
    local admin = orm:session()
    must(admin:execute "DELETE FROM person")
    must(orm:invalidate(Person))
    while must(orm:relay()) > 0 do end
    admin:close()
    for _, key in ipairs(must(redis:call("KEYS", "{" .. world.name .. "}:e[vrd]:*"))) do redis:call("DEL", key) end
  end)

  --- Waits until nothing is left in the outbox.
  local function relay(own)
    faults.await("an empty outbox", function()
      must((own or orm):relay())
      return must(db:query "SELECT COUNT(*) AS n FROM _regolith_outbox")[1].n == 0
    end)
  end

  --- Bodies of a stream.
  local function bodies(stream)
    local list = {}
    for i, entry in ipairs(must(redis:call("XRANGE", orm:stream_key(stream), "-", "+"))) do
      assert.same({ "id", "body" }, { entry[2][1], entry[2][3] })
      list[i] = regolith.json_decode(entry[2][4])
    end
    return list
  end

  local function text(stream)
    local list = {}
    for i, body in ipairs(bodies(stream)) do list[i] = body.kind .. " " .. (body.values and body.values.name or "-") end
    return table.concat(list, ", ")
  end

  it("tell of changes by kind and field, of a flush that has committed", function()
    local ann = db:new(Person, { name = "ann \"x\"\n", n = 1, key = "\0\255", credit = "1.50", tags = { a = { 1 } },
      rights = { "write" }, secret = "hush" })
    must(db:flush())
    ann.n = 2
    must(db:flush())
    ann.name, ann.n = "anna", 3
    must(db:flush())
    db:delete(ann)
    must(db:flush())
    relay()
    local people = bodies "people"
    assert.equal(4, #people)
    assert.same({ entity = "person", id = ann.id, kind = "insert", values = { name = "ann \"x\"\n", n = 1, key = "00ff",
      credit = "1.50", tags = { a = { 1 } }, rights = { "write" } } }, people[1])
    assert.same({ entity = "person", id = ann.id, kind = "update", changed = { "n" }, values = { n = 2 } }, people[2])
    assert.same({ "name", "n" }, people[3].changed)
    assert.same({ entity = "person", id = ann.id, kind = "delete" }, people[4])
    assert.equal("delete -", text "gone")
    assert.equal("insert ann \"x\"\n, update anna", text "names")
  end)

  it("tell of writes on a condition, of those that were made", function()
    local ann = db:new(Person, { name = "ann", n = 1 })
    local bob = db:new(Person, { name = "bob", n = 1 })
    must(db:flush())
    local other = orm:session()
    local hers = other:get(Person, ann.id)
    hers.n = 5
    must(other:flush())
    local refused = db:update(ann, { n = 6 }, { cas = "changes" })
    local made = db:update(bob, { n = 7 }, { cas = "changes" })
    assert.is_truthy(refused.conflict)
    assert.is_falsy(made.conflict)
    must(db:update(bob, { n = regolith.increment(2) }))
    relay()
    local people = bodies "people"
    assert.equal(5, #people)
    assert.same({ 5, 7, 9 }, { people[3].values.n, people[4].values.n, people[5].values.n })
    assert.same({ "n" }, people[5].changed)
    other:close()
  end)

  it("and durable callbacks follow a transaction of several operations", function()
    local ran = {}
    local own = world:open({ Person }, { callbacks = { greet = function(payload) ran[#ran + 1] = payload end } })
    local session = own:session()
    local function make(name, n)
      return session:transaction(function(tx)
        local e = session:new(Person, { name = name, n = n })
        must(session:flush())
        must(session:update(e, { n = n + 1 }, { cas = "changes" }))
        must(tx:commit("greet", name, { key = "k" }))
        if n == 1 then error("no", 0) end
        return true
      end)
    end
    pcall(make, "undone", 1)
    must(make("done", 2))
    relay(own)
    local people = bodies "people"
    assert.equal(2, #people)
    assert.same({ "insert", "done", "update", 3 }, { people[1].kind, people[1].values.name, people[2].kind,
      people[2].values.n })
    local worker = own:callback_worker()
    assert.equal(1, must(worker:step()))
    assert.same({ "done" }, ran)
    worker:close()
    session:close()
    world:shut(own)
  end)

  it("are as atomic as the flush: none of one that fails, all of one that goes through", function()
    must(db:new(Person, { name = "taken" }))
    must(db:flush())
    db:new(Person, { name = "fresh" })
    db:new(Person, { name = "taken" })
    assert.equal("DUPLICATE_KEY", select(2, db:flush()).code)
    db:discard()
    relay()
    assert.equal("insert taken", text "people")
  end)

  it("tell of a queued flush when it is applied, in the order of its stream", function()
    local ann = db:new(Person, { name = "ann" })
    must(db:flush_async())
    ann.n = 5
    must(db:flush_async())
    relay()
    assert.equal("", text "people")
    support.drain(orm)
    relay()
    ann.n = 6
    must(db:flush())
    relay()
    local people = bodies "people"
    assert.same({ "insert", 5, 6 }, { people[1].kind, people[2].values.n, people[3].values.n })
  end)

  it("announce dead letters, and tell of them when they are applied after all", function()
    must(db:execute "INSERT INTO person (id, name) VALUES (900001, 'taken')")
    local told = {}
    local twin = must(db:new(Person, { name = "taken" }))
    must(db:flush_async())
    twin.n = 7
    must(db:flush_async())
    support.drain(orm, { on_dead_letter = function(letter) told[#told + 1] = letter end })
    relay()
    local stream = orm:dead_letter_stream()
    assert.equal("dead-letters.default", stream)
    local announced = bodies(stream)
    assert.same({ "dead", "parked" }, { announced[1].state, announced[2].state })
    assert.same({ "default", "person", twin.id, "insert", 1062 }, { announced[1].queue, announced[1].entity,
      announced[1].entity_id, announced[1].operation, announced[1].errno })
    local letters = must(orm:dead_letters())
    assert.same({ letters[1].number, letters[2].number }, { announced[1].number, announced[2].number })
    assert.same({ letters[1].number, "taken", letters[2].number }, { told[1].number, told[1].values.name,
      told[2].number })
    assert.equal("", text "people")
    must(db:execute "DELETE FROM person WHERE id = 900001")
    must(orm:invalidate(Person))
    assert.equal(0, must(orm:retry "all"))
    relay()
    assert.equal("insert taken, update -", text "people")
  end)

  it("keep nothing for ever where nobody reads: streams without a group are bounded by length and age", function()
    local bounded = must(regolith.open(world:config({ Person }, { queues = { default = { events_max_len = 150,
      events_keep_s = 3600 } } })))
    local key = orm:stream_key "unread"
    must(redis:call("XADD", key, "1-1", "body", "1")) -- of 1970
    for n = 1, 500 do must(bounded:publish("unread", n)) end
    local length = redis:call("XLEN", key)
    assert.is_true(length >= 150 and length < 350, "the stream holds " .. length) -- cut by whole nodes of it
    assert.is_true(redis:call("XRANGE", key, "-", "+", "COUNT", 1)[1][1] ~= "1-1")
    redis:call("XGROUP", "CREATE", key, "g", "0")
    for n = 1, 300 do must(bounded:publish("unread", n)) end
    assert.equal(length + 300, redis:call("XLEN", key)) -- a group is owed every event
    redis:call("DEL", key)
    key = orm:stream_key "people" -- the relay does the same
    for round = 1, 5 do
      for n = 1, 100 do db:new(Person, { name = round .. "/" .. n }) end
      must(db:flush())
      relay(bounded)
    end
    length = redis:call("XLEN", key)
    assert.is_true(length >= 150 and length < 350, "the stream holds " .. length)
    bounded:close()
  end)

  it("need Redis, known fields and names", function()
    local Bad = regolith.entity("bad", {
      field.uint32 "n", events = { x = { "inset", fields = { "m" } }, ["a b"] = true },
    })
    local ok, fault = regolith.open(world:config({ Bad }))
    assert.is_nil(ok)
    assert.matches("did you mean 'insert'", tostring(fault))
    assert.matches("no field 'm'", tostring(fault))
    local config = world:config { Person }
    config.redis = nil
    ok, fault = regolith.open(config)
    assert.is_nil(ok)
    assert.matches("Redis", tostring(fault))
  end)

  it("appear once each, wherever the relay dies, and in the order of each row", function()
    local shared = require "support.programs.shared"
    local own = world:open(shared.list())
    local session = own:session()
    local pings, wanted, killed = {}, {}, {}
    local one, rival
    for i = 1, 3 do pings[i] = session:new(shared.Ping, { id = i, n = 0 }) end
    must(session:flush())
    --- A flush that is not queued waits for those before it, and who applies them may be dead.
    local function settle()
      faults.await("the queue to be empty", function()
        if not rival and not (one and one:running()) then support.drain(own) end
        return must(own:queues())[1].length == 0
      end)
    end
    local function change(n)
      for _ = 1, n do
        for i, ping in ipairs(pings) do
          ping.n = ping.n + 1
          wanted[i] = (wanted[i] or 0) + 1
        end
        local queued = wanted[1] % 2 == 0
        if not queued then settle() end
        must((queued and session.flush_async or session.flush)(session))
      end
    end
    local env = { REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
      REGOLITH_PREFIX = world.name }
    local function empty()
      return must(db:query "SELECT COUNT(*) AS n FROM _regolith_outbox")[1].n == 0 and must(own:queues())[1].length == 0
    end
    for round = 1, 2 do
      for _, step in ipairs { 30, 31, 32 } do
        env.REGOLITH_KILL_POINT = step .. ":" .. round
        one = faults.spawn("relay", env)
        for _ = 1, 4 do change(1) end
        faults.await("its end or that of its work", function()
          return not one:running() or (round > 1 and empty()) -- to its first step it comes in any case
        end)
        if not one:running() then killed[step] = true end
        one:kill()
        if round == 2 then -- two that both believe they are at it
          env.REGOLITH_KILL_POINT = ""
          rival = rival or faults.spawn("relay", env)
        end
      end
    end
    assert.same({ [30] = true, [31] = true, [32] = true }, killed)
    if rival then rival:kill() end
    session:close()
    support.drain(own)
    relay(own)
    local seen, last = {}, {}
    for _, entry in ipairs(must(redis:call("XRANGE", own:stream_key "pings", "-", "+"))) do
      assert.is_nil(seen[entry[2][2]])
      seen[entry[2][2]] = true
      local body = regolith.json_decode(entry[2][4])
      assert.equal((last[body.id] or -1) + 1, body.values.n)
      last[body.id] = body.values.n
    end
    assert.same(wanted, last)
    assert.equal(0, redis:call("SCARD", "{" .. world.name .. "}:rs:default"))
    world:shut(own)
  end)

  it("are published again for nobody by one that was replaced", function()
    local other = world:open { Person }
    db:new(Person, { name = "a" })
    must(db:flush())
    relay()
    must(db:execute "UPDATE _regolith_relay SET held_until = '1970-01-02'")
    db:new(Person, { name = "b" })
    must(db:flush())
    relay(other) -- takes over
    db:new(Person, { name = "c" })
    must(db:flush())
    assert.equal(0, must(orm:relay())) -- still believes that it is the one
    relay(other)
    assert.equal("insert a, insert b, insert c", text "people")
    -- a database that was restored, and with it an older fence
    must(db:execute "UPDATE _regolith_relay SET fence = 0, held_until = '1970-01-02'")
    db:new(Person, { name = "d" })
    must(db:flush())
    relay()
    assert.equal("insert a, insert b, insert c, insert d", text "people")
    world:shut(other)
  end)

  -- ---- subscribers ----

  describe("of a stream", function()
    local heard, answer
    local open = {}

    local function subscriber(more)
      local opts = { group = "g", first_backoff_ms = 1, max_backoff_ms = 1, max_tries = 3, handler = function(event)
        heard[#heard + 1] = event
        return answer(event)
      end }
      for name, v in pairs(more or {}) do opts[name] = v end
      local s = orm:subscriber("orders", opts)
      open[#open + 1] = s
      return s
    end

    local function numbers()
      local list = {}
      for i, event in ipairs(heard) do list[i] = event.body.n end
      return table.concat(list, " ")
    end

    --- Steps until so many events are done with.
    local function work(s, n)
      local done = 0
      faults.await(n .. " events", function()
        done = done + must(s:step(0.02))
        return done >= n
      end)
      assert.equal(n, done)
    end

    before_each(function() heard, answer = {}, function() end end)
    after_each(function()
      for _, s in ipairs(open) do s:close() end
      open = {}
    end)

    it("get what the application publishes, each group all of it", function()
      local entry = must(orm:publish("orders", { n = 1 }))
      assert.matches("^%d+%-%d+$", entry)
      must(orm:publish("orders", { n = 2 }))
      local a, b = subscriber(), subscriber { group = "h" }
      work(a, 2)
      assert.equal("1 2", numbers())
      assert.same({ "orders", "g", entry, entry, 1 }, { heard[1].stream, heard[1].group, heard[1].id, heard[1].entry,
        heard[1].tries })
      work(b, 2)
      assert.equal("1 2 1 2", numbers())
      assert.equal(0, must(a:step()))
      local late = subscriber { group = "late", from = "now" }
      assert.equal(0, must(late:step()))
      must(orm:publish("orders", { n = 3 }))
      work(late, 1)
      local stats = must(orm:stream_stats "orders")
      assert.equal(3, stats.length)
      assert.same({ "g", 0, 1, 0 }, { stats.groups[1].name, stats.groups[1].pending, stats.groups[1].lag,
        stats.groups[1].dead })
      assert.same({ 0, 0 }, { must(orm:stream_stats "nowhere").length, #must(orm:stream_stats "nowhere").groups })
    end)

    it("get binary values of entities as bytes", function()
      local key
      db:new(Person, { name = "ann", key = "\1\254" })
      must(db:flush())
      relay()
      local s = orm:subscriber("people", { group = "g", handler = function(event) key = event.body.values.key end })
      work(s, 1)
      assert.equal("\1\254", key)
      s:close()
    end)

    it("share a group's events", function()
      local a, b = subscriber { batch = 1 }, subscriber { batch = 1 }
      for n = 1, 6 do must(orm:publish("orders", { n = n })) end
      for _ = 1, 3 do
        work(a, 1)
        work(b, 1)
      end
      assert.equal("1 2 3 4 5 6", numbers())
      assert.same({ 3, 3 }, { a:stats().handled, b:stats().handled })
    end)

    it("try again what failed before anything behind it", function()
      local failures = 2
      answer = function(event)
        if event.body.n == 1 and failures > 0 then
          failures = failures - 1
          error("not yet", 0)
        end
      end
      for n = 1, 3 do must(orm:publish("orders", { n = n })) end
      local s = subscriber()
      work(s, 3)
      assert.equal("1 1 1 2 3", numbers())
      assert.equal(3, heard[3].tries)
      assert.same({ handled = 3, failed = 2, dead = 0, claimed = 0 }, s:stats())
    end)

    it("put what fails for good among the letters of the group, where it may be tried again or dropped", function()
      local told
      local broken = true
      answer = function(event) if broken and event.body.n < 3 then return nil, "no paper" end end
      for n = 1, 3 do must(orm:publish("orders", { n = n })) end
      local s = subscriber { on_dead = function(event) told = event end }
      work(s, 3)
      assert.same({ 2, "no paper" }, { told.body.n, told.error })
      local letters = must(orm:event_letters("orders", "g"))
      assert.equal(2, #letters)
      assert.same({ { n = 1 }, "no paper", 3, heard[1].id }, { letters[1].body, letters[1].error, letters[1].tries,
        letters[1].id })
      assert.equal(2, must(orm:stream_stats "orders").groups[1].dead)
      work(s, 0)
      assert.equal(1, must(orm:event_retry("orders", "g", letters[1].letter)))
      broken, heard = false, {}
      work(s, 1)
      assert.equal("1", numbers())
      assert.is_true(heard[1].retried)
      assert.equal(letters[1].id, heard[1].id)
      assert.equal(1, must(orm:event_drop("orders", "g", "all")))
      assert.same({}, must(orm:event_letters("orders", "g")))
      assert.equal(0, must(orm:event_retry("orders", "g", "all")))
    end)

    it("take over what another one left behind", function()
      local a = subscriber { claim_after_s = 0.05 }
      answer = function() return false end
      for n = 1, 3 do must(orm:publish("orders", { n = n })) end
      assert.equal(0, must(a:step())) -- failed once; three are owed
      answer, heard = function() end, {}
      faults.pause(60)
      work(subscriber { claim_after_s = 0.05 }, 3)
      assert.equal("1 2 3", numbers())
      assert.equal(2, heard[1].tries)
    end)

    it("keep a stream short: what all have done with goes, when it is old enough", function()
      for n = 1, 4 do must(orm:publish("orders", { n = n })) end
      assert.equal(0, must(orm:trim_stream "orders")) -- nobody has had it
      local a, b = subscriber { keep_s = 3600 }, subscriber { group = "h", batch = 2, keep_s = 3600 }
      work(a, 4)
      work(b, 2)
      assert.equal(0, must(orm:trim_stream("orders", { keep_s = 60 })))
      assert.equal(2, must(orm:trim_stream "orders"))
      work(b, 2)
      assert.equal("1 2 3 4 1 2 3 4", numbers())
    end)

    it("keep nothing for a group that is forgotten, with its letters", function()
      for n = 1, 3 do must(orm:publish("orders", { n = n })) end
      answer = function(event) return event.body.n ~= 2 end
      local s = subscriber { max_tries = 1 }
      work(s, 3)
      s:close()
      must(orm:publish("orders", { n = 4 }))
      assert.equal(1, #must(orm:event_letters("orders", "g")))
      assert.is_true(orm:forget_group("orders", "g"))
      assert.same({}, must(orm:event_letters("orders", "g")))
      assert.same({}, must(orm:stream_stats "orders").groups)
      assert.is_false(orm:forget_group("orders", "g"))
      assert.is_false(orm:forget_group("nothing", "g"))
      assert.has_error(function() orm:forget_group("orders", "a group") end)
      heard, answer = {}, function() end
      work(subscriber(), 4) -- who comes after all begins anew
    end)

    it("begin anew when the stream was lost", function()
      local s = subscriber()
      must(orm:publish("orders", { n = 1 }))
      work(s, 1)
      redis:call("DEL", orm:stream_key "orders")
      must(orm:publish("orders", { n = 2 }))
      faults.await("it", function()
        s:step()
        return #heard == 2
      end)
      assert.equal("1 2", numbers())
    end)

    it("refuse misuse where it stands", function()
      local function refused(pattern, fn)
        local ok, fault = pcall(fn)
        assert.is_false(ok)
        assert.matches(pattern, fault)
        assert.matches("events_spec", fault)
      end
      refused("stream's name", function() local s = orm:publish("a b", {}) return s end)
      refused("no JSON", function() local s = orm:publish("a", { f = function() end }) return s end)
      refused("group's name", function() local s = orm:subscriber("a", { handler = function() end }) return s end)
      refused("unknown option 'grup'", function() local s = orm:subscriber("a", { grup = "g" }) return s end)
      refused("needs a handler", function() local s = orm:subscriber("a", { group = "g" }) return s end)
      refused("name of a letter", function() local s = orm:event_drop("a", "g", 7) return s end)
    end)
  end)

  -- ---- subscribers that die ----

  it("reach a handler at least once, whenever subscribers are killed", function()
    must(db:connection(function(conn)
      return conn:execute "CREATE TABLE heard (number INT AUTO_INCREMENT PRIMARY KEY, uid CHAR(40), n INT)"
    end))
    local env = { REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
      REGOLITH_PREFIX = world.name }
    local n, deaths = 0, 0
    for _, when in ipairs { "early", "late", "early", "late" } do
      for _ = 1, 10 do
        n = n + 1
        must(orm:publish("numbers", { n = n }))
      end
      local one = faults.spawn("subscriber", env, n - 5, when)
      faults.await("its end", function() return not one:running() end)
      deaths = deaths + 1
      one:kill()
    end
    local last = faults.spawn("subscriber", env, "-", "-")
    local function heard()
      return must(db:query "SELECT COUNT(DISTINCT n) AS n FROM heard")[1].n
    end
    faults.await("all to be heard", function() return heard() == n end)
    last:signal "TERM"
    local ok, said = last:wait()
    assert.is_true(ok)
    assert.matches("ended", said)
    assert.equal(4, deaths)
    assert.equal(0, must(orm:stream_stats "numbers").groups[1].pending)
    assert.same({}, must(orm:event_letters("numbers", "counters")))
    -- one that kills whoever handles it
    must(orm:publish("numbers", { n = 1000 }))
    must(orm:publish("numbers", { n = 1001 }))
    local died = 0
    faults.await("a letter", function()
      local one = faults.spawn("subscriber", env, 1000, "early")
      faults.await("its end", function()
        return not one:running() or #must(orm:event_letters("numbers", "counters")) == 1
      end)
      if not one:running() then died = died + 1 end
      one:kill()
      return #must(orm:event_letters("numbers", "counters")) == 1
    end)
    assert.equal(3, died)
    assert.same({ n = 1000 }, must(orm:event_letters("numbers", "counters"))[1].body)
    local one = faults.spawn("subscriber", env, "-", "-")
    faults.await("the one behind it", function()
      return must(db:query "SELECT COUNT(*) AS n FROM heard WHERE n = 1001")[1].n > 0
    end)
    one:kill()
  end)
end)
