-- SPDX-License-Identifier: MIT
-- The console as a function of requests: who is let in, what is told, what is done.

local console_module = require "regolith.console"
local faults = require "support.faults"
local plain = require "regolith.console.plain"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local TOKEN = "3f9c1d0b7a5e42c8b6d1e0f4"
local EVIL = "<script>alert('x')</script>"

local Item = regolith.entity("item", {
  field.string "name" { required = true, unique = true, length = 60 },
  field.uint32 "n",
  field.string "secret" { sensitive = true, nullable = true },
  field.string "note" { nullable = true },
  events = { items = { "insert" } },
  cache = { process = true, redis = true },
})

describe("the console", function()
  local world, orm, db, console

  local function send(method, path, opts)
    opts = opts or {}
    local headers = { ["X-Regolith-Token"] = TOKEN, Host = "ops.example" }
    if method == "POST" then headers["Content-Type"] = "application/json" end
    for name, v in pairs(opts.headers or {}) do headers[name] = v or nil end
    local body = opts.body
    if type(body) == "table" then body = regolith.json_encode(body) end
    local answer = (opts.console or console):handle {
      method = method, path = "/console" .. path, query = opts.query, headers = headers, body = body,
      remote = opts.remote or "127.0.0.1",
    }
    local kind = answer.headers["Content-Type"]
    return answer, kind == "application/json" and regolith.json_decode(answer.body) or nil
  end

  local function get(path, query, of)
    local answer, value = send("GET", "/api/" .. path, { query = query, console = of })
    assert.equal(200, answer.status, answer.body)
    return value
  end

  local function post(path, body, of) return send("POST", "/api/" .. path, { body = body, console = of }) end

  setup(function()
    world = support.world()
    local function mail() error("no such user <b>ann</b>", 0) end
    orm = world:open({ Item }, { slow_ms = 1, callbacks = { mail = mail } })
    console = console_module.new(orm, { token = TOKEN, interval_s = 1 })
  end)
  teardown(function() world:close() end)
  before_each(function() db = orm:session() end)
  after_each(function()
    db:close()
    support.drain(orm)
    must(orm:drop "all")
    local admin = orm:session()
    must(admin:execute "DELETE FROM item")
    must(orm:invalidate(Item))
    admin:close()
  end)

  --- A queued insert of a name that is taken in MySQL: the number of its letter.
  local function dead(name, id)
    must(db:execute("INSERT INTO item (id, name, n) VALUES (?, ?, 1)", id or 900001, name))
    must(orm:invalidate(Item))
    local item = must(db:new(Item, { name = name, n = 7, note = "note of " .. name, secret = "hush" }))
    must(db:flush_async())
    support.drain(orm)
    local letters = must(orm:dead_letters())
    return letters[#letters].number, item.id
  end

  describe("is refused", function()
    local function fails(opts, pattern)
      local ok, message = pcall(console_module.new, orm, opts)
      assert.is_false(ok)
      assert.matches(pattern, message)
    end

    it("without a token, or with a weak one", function()
      fails(nil, "console: option 'token' is missing.*REGOLITH_CONSOLE_TOKEN")
      fails({}, "option 'token' is missing")
      fails({ token = "" }, "option 'token' must have 20 to 512 characters.*openssl rand")
      fails({ token = "0123456789012345678" }, "20 to 512 characters")
      fails({ token = ("a"):rep(40) }, "at least 8 different characters")
      fails({ token = "a token with some spaces in it" }, "printable ASCII")
      fails({ token = 12345678901234567890 }, "must be a string")
      fails({ token_file = "/no/such/file" }, "token_file' cannot be read")
    end)

    it("with options that do not exist", function()
      fails({ token = TOKEN, tokn = 1 }, "unknown option 'tokn' %(did you mean 'token'%?%)")
      fails({ token = TOKEN, path = "console/" }, "option 'path' must be a path")
      fails({ token = TOKEN, dict = "console" }, "option 'dict' must be a dictionary of nginx")
      local ok, message = pcall(console_module.new, {}, { token = TOKEN })
      assert.is_false(ok)
      assert.matches("an orm is expected", message)
    end)

    it("unless the environment or a file has one", function()
      local path = os.tmpname()
      faults.write_file(path, TOKEN .. "\n")
      local of = console_module.new(orm, { token_file = path })
      assert.equal("Regolith", get("session", nil, of).title)
      faults.write_file(path, "short\n")
      fails({ token_file = path }, "the token in '.*' must have 20")
      os.remove(path)
    end)
  end)

  describe("lets in", function()
    local ENDPOINTS = { "session", "overview", "letters", "letter", "slow", "schema", "streams", "streams/letters",
      "callbacks", "letters/retry", "letters/drop", "letters/edit", "queue/pause", "queue/resume", "streams/retry",
      "streams/drop", "callbacks/retry", "callbacks/drop", "nothing" }

    it("nobody without the token, whatever is asked", function()
      for i, path in ipairs(ENDPOINTS) do
        for _, method in ipairs { "GET", "POST" } do
          local remote = "10.0.0." .. i
          local answer, value = send(method, "/api/" .. path,
            { headers = { ["X-Regolith-Token"] = false }, remote = remote })
          assert.equal(401, answer.status, path)
          assert.same({ error = { code = "TOKEN",
            message = "the token (header X-Regolith-Token) is missing or wrong" } }, value)
          answer = send(method, "/api/" .. path, { headers = { ["X-Regolith-Token"] = TOKEN .. "x" }, remote = remote })
          assert.equal(401, answer.status, path)
        end
      end
    end)

    it("nobody with the token in the address, or one that only begins alike", function()
      local answer = send("GET", "/api/session", { headers = { ["X-Regolith-Token"] = false },
        query = "token=" .. TOKEN .. "&X-Regolith-Token=" .. TOKEN, remote = "10.1.0.1" })
      assert.equal(401, answer.status)
      for _, given in ipairs { TOKEN:sub(1, -2), TOKEN .. TOKEN, TOKEN:upper() } do
        answer = send("GET", "/api/session", { headers = { ["X-Regolith-Token"] = given }, remote = "10.1.0.2" })
        assert.equal(401, answer.status)
      end
    end)

    it("nobody who has tried too often, not even with the right one, and others meanwhile", function()
      local of = console_module.new(orm, { token = TOKEN })
      local function try(token, remote)
        local answer = send("GET", "/api/session",
          { headers = { ["X-Regolith-Token"] = token }, remote = remote, console = of })
        return answer.status, answer.headers["Retry-After"]
      end
      for _ = 1, 5 do assert.equal(401, (try("wrong", "192.0.2.1"))) end
      for _, token in ipairs { "wrong", TOKEN } do
        local status, after = try(token, "192.0.2.1")
        assert.equal(429, status)
        assert.is_true(tonumber(after) >= 1 and tonumber(after) <= 60)
      end
      assert.equal(200, (try(TOKEN, "192.0.2.2")))
      for i = 1, 5 do assert.equal(401, (try("wrong", "2001:db8:1:2::" .. i))) end
      assert.equal(429, (try(TOKEN, "2001:db8:1:2:a:b:c:d"))) -- one network is one customer
      assert.equal(200, (try(TOKEN, "2001:db8:1:3::1")))
    end)

    it("counts a bounded number of addresses", function()
      local of = console_module.new(orm, { token = TOKEN })
      for i = 1, 1300 do
        send("GET", "/api/session", { headers = { ["X-Regolith-Token"] = "wrong" }, console = of,
          remote = string.format("198.51.%d.%d", math.floor(i / 250), i % 250) })
      end
      assert.is_true(of._guard.counter.n <= 1001)
      local answer = send("GET", "/api/session", { console = of, remote = "203.0.113.9" })
      assert.equal(429, answer.status)
    end)

    it("no request of another site", function()
      for _, headers in ipairs { { Origin = "https://evil.example" }, { Origin = "null" },
        { ["Sec-Fetch-Site"] = "cross-site" }, { ["sec-fetch-site"] = "same-site" } } do
        for _, method in ipairs { "GET", "POST" } do
          local answer, value = send(method, "/api/queue/pause", { headers = headers, body = "{}" })
          assert.equal(403, answer.status)
          assert.equal("FOREIGN", value.error.code)
        end
      end
      local same = { Origin = "https://ops.example", ["Sec-Fetch-Site"] = "same-origin" }
      assert.equal(200, send("GET", "/api/session", { headers = same }).status)
      same.Host = "127.0.0.1:8080" -- a proxy's doing: the browser knows better
      assert.equal(200, send("GET", "/api/session", { headers = same }).status)
    end)

    it("no form: a POST is JSON", function()
      for _, kind in ipairs { "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
        "application/jsonx" } do
        local answer = send("POST", "/api/queue/pause", { headers = { ["Content-Type"] = kind }, body = "{}" })
        assert.equal(415, answer.status, kind)
      end
      local bare = send("POST", "/api/queue/pause", { headers = { ["Content-Type"] = false }, body = "{}" })
      assert.equal(415, bare.status)
      assert.is_false(must(orm:queues())[1].paused)
    end)

    it("no other method: what changes anything is POST", function()
      for _, path in ipairs { "letters/drop", "letters/retry", "letters/edit", "queue/pause" } do
        local answer = send("GET", "/api/" .. path, { query = "number=1&queue=default" })
        assert.equal(405, answer.status)
        assert.equal("POST", answer.headers.Allow)
      end
      for _, method in ipairs { "POST", "PUT", "DELETE", "OPTIONS", "TRACE" } do
        local json = { ["Content-Type"] = "application/json" }
        local answer = send(method, "/api/overview", { headers = json, body = "{}" })
        assert.equal(405, answer.status)
        assert.equal("GET, HEAD", answer.headers.Allow)
      end
      assert.equal(404, send("GET", "/api/nothing").status)
      assert.equal(405, send("POST", "/").status)
    end)
  end)

  describe("its page", function()
    it("is without data and without a token, and its policy allows its own two files only", function()
      local answer = console:handle { method = "GET", path = "/console/" }
      assert.equal(200, answer.status)
      assert.equal("text/html; charset=utf-8", answer.headers["Content-Type"])
      local policy = answer.headers["Content-Security-Policy"]
      local nonce = policy:match "script%-src 'nonce%-(%x+)'"
      assert.equal(24, #nonce)
      assert.matches("default%-src 'none'", policy)
      assert.matches("require%-trusted%-types%-for 'script'", policy)
      assert.is_nil(policy:find("unsafe", 1, true))
      for tag in answer.body:gmatch "<[sl][ct][^>]*>" do
        if tag:find "^<script" or tag:find "stylesheet" then assert.matches('nonce="' .. nonce .. '"', tag) end
      end
      assert.is_nil(answer.body:find "https?://[^w]") -- no address but SVG's name
      assert.is_nil(answer.body:find " on%w+=")
      assert.is_nil(answer.body:find " style=")
      local other = console:handle({ method = "GET", path = "/console/" }).headers["Content-Security-Policy"]
      assert.are_not.equal(policy, other)
      for _, name in ipairs { "Cache-Control", "X-Content-Type-Options", "Referrer-Policy", "X-Frame-Options" } do
        assert.is_string(answer.headers[name])
      end
      assert.same("", console:handle({ method = "HEAD", path = "/console/" }).body)
    end)

    it("has a script that makes no HTML of text, and evaluates none", function()
      local answer = console:handle { method = "GET", path = "/console/console.js" }
      assert.equal("text/javascript; charset=utf-8", answer.headers["Content-Type"])
      for _, word in ipairs { "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(",
        "javascript:", "http://", "https://", "setAttribute(\"style", "document.cookie", "localStorage" } do
        local at = answer.body:gsub("http://www%.w3%.org/2000/svg", ""):find(word, 1, true)
        assert.is_nil(at, word)
      end
      local same = console:handle { method = "GET", path = "/console/console.js",
        headers = { ["If-None-Match"] = answer.headers.ETag } }
      assert.equal(304, same.status)
      assert.equal("", same.body)
      local style = console:handle { method = "GET", path = "/console/console.css" }
      assert.equal("text/css; charset=utf-8", style.headers["Content-Type"])
      assert.is_nil(style.body:find("url(", 1, true))
    end)

    it("has colours that can be read, light and dark", function()
      local style = require "regolith.console.style"
      local function read(block)
        local colours = {}
        for name, hex in block:gmatch "%-%-([%w-]+): #(%x%x%x%x%x%x)" do
          local sum = 0
          for i, weight in ipairs { 0.2126, 0.7152, 0.0722 } do
            local c = tonumber(hex:sub(2 * i - 1, 2 * i), 16) / 255
            sum = sum + weight * (c <= 0.04045 and c / 12.92 or ((c + 0.055) / 1.055) ^ 2.4)
          end
          colours[name] = sum
        end
        return colours
      end
      local light, dark = style:match ":root (%b{})", style:match "dark%) {%s*:root (%b{})"
      for scheme, colours in pairs { light = read(light), dark = read(dark) } do
        for _, pair in ipairs { "text card", "text ground", "soft card", "soft ground", "soft sunk", "accent card",
          "accent ground", "good card", "good sunk", "warn card", "bad card", "bad bad-tint", "warn warn-tint",
          "accent-ink accent" } do
          local front, back = pair:match "(%S+) (%S+)"
          local a, b = math.max(colours[front], colours[back]), math.min(colours[front], colours[back])
          assert.is_true((a + 0.05) / (b + 0.05) >= 4.5, scheme .. ": " .. pair)
        end
      end
    end)

    it("is found without the slash, and nothing else is", function()
      local answer = console:handle { method = "GET", path = "/console" }
      assert.equal(308, answer.status)
      assert.equal("console/", answer.headers.Location)
      for _, path in ipairs { "/", "/consoles", "/console/x", "/console/../etc/passwd", "/console/console.lua" } do
        assert.equal(404, console:handle({ method = "GET", path = path }).status, path)
      end
    end)

    it("escapes its title", function()
      local of = console_module.new(orm, { token = TOKEN, title = EVIL .. '"&', path = "/admin/db" })
      local answer = of:handle { method = "GET", path = "/admin/db/" }
      assert.matches("<title>&lt;script&gt;alert%(&#39;x&#39;%)&lt;/script&gt;&quot;&amp;</title>", answer.body)
    end)
  end)

  describe("tells", function()
    it("how pools, caches and queues are, with points over time", function()
      local item = must(db:new(Item, { name = "one", n = 1 }))
      must(db:flush())
      faults.await("an answer of the process cache", function()
        local other = orm:session()
        must(other:get(Item, item.id))
        other:close()
        return orm:counter "regolith_process_cache_hits_total" > 0
      end)
      item.n = 2
      must(db:flush_async())
      local answer
      faults.await("servers that answer in time", function()
        answer = get "overview"
        return #answer.pools == 2 and answer.pools[1].ok and answer.pools[2].ok and answer.queues.list[1]
      end)
      for _, pool in ipairs(answer.pools) do
        assert.is_true(pool.limit > 0 and pool.busy >= 0 and pool.waiting == 0 and pool.errors >= 0)
      end
      assert.is_true(answer.counts.process_hits >= 1)
      assert.is_true(answer.counts.flushes >= 1 and answer.counts.queued >= 1)
      faults.await("a point of the queued write", function()
        answer = get "overview"
        if answer.queues.error then return false end
        return answer.queues.list[1].length == 1 and #answer.points >= 2 and #answer.queue_points >= 2
          and answer.queue_points[#answer.queue_points].queues.default.length == 1
      end)
      support.drain(orm)
      faults.await("a point of the rate", function()
        answer = get "overview"
        local rated = false
        for _, point in ipairs(answer.queue_points) do rated = rated or point.queues.default.rate > 0 end
        return rated and answer.queues.list[1].length == 0
      end)
      local since = answer.points[#answer.points].t
      for _, point in ipairs(get("overview", { since = tostring(since) }).points) do assert.is_true(point.t > since) end
    end)

    it("of points a bounded number", function()
      local store = require("regolith.console.store").new(5, 10)
      for slot = 1, 50 do
        store:put_point(slot, { mysql = slot })
        store:put_queues(slot, { queues = {} })
      end
      assert.equal(10, #store:points(0))
      assert.equal(10, #store:queue_points(0))
      assert.equal(50 * 5, store:points(0)[10].t)
      assert.equal(2, #store:points(48))
    end)

    it("of several processes as of one", function()
      local figures = require "regolith.console.figures"
      local function state(bytes)
        return { coherent = true, pools = { { kind = "mysql", name = "a", busy = 1, idle = 2, waiting = 0, limit = 8,
          errors = 3 } }, values = { regolith_process_cache_bytes = bytes, regolith_flushes_total = 4 } }
      end
      local sum = figures.sum { state(100), state(90) }
      assert.equal(190, sum.values.regolith_process_cache_bytes)
      assert.equal(8, sum.values.regolith_flushes_total)
      assert.same({ { kind = "mysql", name = "a", busy = 2, idle = 4, waiting = 0, limit = 16, errors = 6 } },
        sum.pools)
      assert.equal(100, figures.sum({ state(100), state(90) }, true).values.regolith_process_cache_bytes)
    end)

    it("of servers that are away, in bounded time", function()
      local lost = must(regolith.open { mysql = "mysql+unix:///nowhere.sock?user=root&db=x",
        redis = "redis+unix:///nowhere.sock", entities = { Item }, lazy = true })
      local of = console_module.new(lost, { token = TOKEN })
      local started = faults.now()
      local answer = get("overview", nil, of)
      assert.is_true(faults.now() - started < 15)
      for _, pool in ipairs(answer.pools) do
        assert.is_false(pool.ok)
        assert.is_string(pool.error)
      end
      assert.matches("UNAVAILABLE", answer.queues.error)
      local status = send("GET", "/api/letters", { console = of }).status
      assert.equal(503, status)
      lost:close()
    end)

    it("what was slow, never with values", function()
      must(db:query("SELECT SLEEP(0.05), ? AS hidden, 'literal-secret' AS x", "bound-secret"))
      local answer = get("slow", { values = "1" })
      local found
      for _, event in ipairs(answer.slow) do
        if event.text:find("SLEEP", 1, true) then found = event end
      end
      assert.equal("mysql", found.source)
      assert.is_true(found.duration >= 0.04)
      assert.is_nil(found.text:find("secret", 1, true))
      local listed = false
      for _, event in ipairs(orm:slow()) do listed = listed or event.number == found.number end
      assert.is_true(listed)
      assert.equal(1, #orm:slow { limit = 1 })
      local _, message = pcall(orm.slow, orm, { limt = 1 })
      assert.matches("did you mean 'limit'", message)
    end)

    it("how the schema differs, and changes nothing", function()
      assert.same({}, get "schema".changes)
      must(db:connection(function(conn)
        return conn:execute "ALTER TABLE item ADD COLUMN extra INT, DROP COLUMN note"
      end))
      must(db:execute "INSERT INTO item (id, name, n, extra) VALUES (900001, 'x', 1, 1)")
      local changes = get "schema".changes
      assert.equal(2, #changes)
      local safe = 0
      for _, change in ipairs(changes) do safe = safe + (change.safe and 1 or 0) end
      assert.equal(1, safe)
      assert.equal(2, #get "schema".changes)
      assert.equal(405, send("POST", "/api/schema", { body = "{}" }).status)
      assert.equal(404, send("POST", "/api/schema/apply", { body = "{}" }).status)
      must(orm:schema_apply { destructive = true })
    end)
  end)

  describe("of dead letters", function()
    it("tells no value unless it is asked for, and sensitive ones never", function()
      local number = dead(EVIL)
      local text = send("GET", "/api/letters").body
        .. send("GET", "/api/letter", { query = { number = tostring(number) } }).body
      assert.is_nil(text:find("alert", 1, true))
      assert.is_nil(text:find("note of", 1, true))
      local letter = get("letter", { number = tostring(number) })
      assert.is_false(letter.values_shown)
      assert.matches("duplicate key 'name'", letter.error)
      for _, line in ipairs(letter.fields) do assert.is_nil(line.value) end

      local answer = send("GET", "/api/letter", { query = "values=1&number=" .. number })
      assert.equal("application/json", answer.headers["Content-Type"])
      assert.equal("nosniff", answer.headers["X-Content-Type-Options"])
      local values = {}
      for _, line in ipairs(regolith.json_decode(answer.body).fields) do values[line.path] = line.value end
      assert.equal(EVIL, values.name)
      assert.equal("(hidden)", values.secret)
      assert.is_nil(answer.body:find("hush", 1, true))

      local closed = console_module.new(orm, { token = TOKEN, values = false })
      letter = get("letter", { number = tostring(number), values = "1" }, closed)
      assert.is_false(letter.values_shown)
    end)

    it("hides values in errors", function()
      local function hidden(text, wanted, errno) assert.equal(wanted, plain.redact(text, errno)) end
      hidden("Duplicate entry 'O'Brien' for key 'name'", "Duplicate entry '…' for key 'name'")
      hidden("Duplicate entry 'a' for key 'b' for key 'name'", "Duplicate entry '…' for key 'name'")
      hidden("Incorrect integer value: 'x' for column 'n' at row 1",
        "Incorrect integer value: '…' for column 'n' at row 1")
      hidden("Data too long for column 'name' at row 1", "Data too long for column 'name' at row 1")
      hidden("pool 'default': all 8 connections are busy", "pool 'default': all 8 connections are busy")
      hidden("Truncated incorrect DOUBLE value: \"se'cret", "Truncated incorrect DOUBLE value: \"…\"")
      hidden("item: x 'a' is 'b'c' (MySQL error 1062)", "item: x '…' (MySQL error 1062)")
      hidden("no field 'nam' (did you mean 'name'?)", "no field 'nam' (did you mean 'name'?)")
      hidden("no credit for ann", "a trigger refused it: its words are values", 1644)
      hidden("nothing is quoted", "nothing is quoted")
    end)

    it("tries them again: what cannot be applied stays, what can is gone", function()
      local number, id = dead "taken"
      local answer, value = post("letters/retry", { queue = "default", numbers = { number } })
      assert.equal(200, answer.status, answer.body)
      assert.same({}, value.done)
      assert.equal(number, value.failed[1].number)
      assert.matches("duplicate key", value.failed[1].error)
      must(db:execute "DELETE FROM item WHERE id = 900001")
      answer, value = post("letters/retry", { queue = "default", numbers = { number } })
      assert.equal(200, answer.status, answer.body)
      assert.same({ number }, value.done)
      assert.same({}, must(orm:dead_letters()))
      assert.equal("taken", must(db:query("SELECT name FROM item WHERE id = ?", id))[1].name)
    end)

    it("changes and applies them", function()
      local number, id = dead "taken"
      local answer = post("letters/edit",
        { number = number, values = { name = "free", note = regolith.null, n = "8" } })
      assert.equal(200, answer.status, answer.body)
      assert.equal("edited", get("letter", { number = tostring(number) }).state)
      local _, value = post("letters/retry", { numbers = { number } })
      assert.same({ number }, value.done)
      local row = must(db:query("SELECT name, n, note FROM item WHERE id = ?", id))[1]
      assert.same({ name = "free", n = 8 }, row)
      assert.equal("free", must(orm:session():get(Item, id)).name) -- and the cache
    end)

    it("says what is wrong with a change, and changes nothing then", function()
      local number = dead "taken"
      local function refused(body, pattern)
        body.number = body.number or number
        local answer, value = post("letters/edit", body)
        assert.equal(400, answer.status, answer.body)
        assert.equal("INVALID", value.error.code)
        assert.matches(pattern, value.error.message)
      end
      refused({ values = { nam = "x" } }, "item has no field 'nam' %(did you mean 'name'%?%)")
      refused({ values = { n = "seven" } }, "n")
      refused({ values = { name = { 1 } } }, "values by field")
      refused({ operation = "upsert", values = { n = 1 } }, "insert, update or delete")
      refused({}, "nothing is changed")
      refused({ number = 999999, values = { n = 1 } }, "no dead letter 999999")
      refused({ number = -1, values = { n = 1 } }, "a number of a dead letter")
      refused({ queue = "nope", values = { n = 1 } }, "no queue of that name")
      assert.equal("dead", must(orm:dead_letter(number)).state)
    end)

    it("drops the ones that are named, and no other", function()
      local first, second = dead("taken", 900001), dead("taken too", 900002)
      local answer = post("letters/drop", { queue = "default", number = "all" })
      assert.equal(400, answer.status)
      assert.equal(2, #must(orm:dead_letters()))
      local _, value = post("letters/drop", { queue = "default", numbers = { first, 424242 } })
      assert.same({ first }, value.done)
      assert.equal(424242, value.failed[1].number)
      local left = must(orm:dead_letters())
      assert.equal(1, #left)
      assert.equal(second, left[1].number)
    end)

    it("only shows them when it may not more, and tells the application what was done", function()
      local number = dead "taken"
      local told = {}
      local reader = console_module.new(orm, { token = TOKEN, read_only = true })
      for _, path in ipairs { "letters/retry", "letters/drop", "letters/edit", "queue/pause", "callbacks/drop" } do
        local answer, value = post(path, { numbers = { number }, queue = "default" }, reader)
        assert.equal(403, answer.status)
        assert.equal("READ_ONLY", value.error.code)
      end
      assert.equal(1, #get("letters", nil, reader).letters)
      local of = console_module.new(orm, { token = TOKEN, on_action = function(action) told[#told + 1] = action end })
      post("letters/drop", { queue = "default", numbers = { number } }, of)
      post("letters/drop", { queue = "nope", numbers = { number } }, of)
      assert.same({ action = "letters/drop", queue = "default", numbers = { number }, remote = "127.0.0.1", ok = true },
        told[1])
      assert.is_false(told[2].ok)
    end)
  end)

  it("stops queues and lets them go on", function()
    assert.equal(200, post("queue/pause", { queue = "default" }).status)
    assert.is_true(must(orm:queues())[1].paused)
    assert.equal(200, post("queue/resume", { queue = "default" }).status)
    assert.is_false(must(orm:queues())[1].paused)
    assert.equal(400, post("queue/pause", { queue = "nope" }).status)
    assert.equal(400, post("queue/pause", { queue = { 1 } }).status)
  end)

  it("tells of delayed flushes", function()
    must(db:new(Item, { name = "later", n = 1 }))
    must(db:flush_async { delay_ms = 3600000 })
    assert.equal(1, must(orm:delayed_count()).count)
    local queue
    faults.await("the count", function()
      queue = get "overview".queues.list[1]
      return queue and queue.delayed == 1
    end)
    assert.is_true(queue.next_at > os.time() + 3000)
    support.redis("DEL", "{" .. world.name .. "}:lz:default", "{" .. world.name .. "}:lp:default")
  end)

  it("shows events that a group gave up, tries them again and drops them", function()
    while must(orm:relay()) > 0 do end
    support.redis("DEL", orm:stream_key "items")
    for _, name in ipairs { "a", "b" } do must(db:new(Item, { name = name, n = 1, note = "note of " .. name })) end
    must(db:flush())
    local subscriber = orm:subscriber("items", { group = "mailer", max_tries = 1,
      handler = function() error("cannot mail <b>ann</b>", 0) end })
    faults.await("two letters", function()
      must(orm:relay())
      must(subscriber:step(0.05))
      return #must(orm:event_letters("items", "mailer")) == 2
    end)
    local stream
    for _, one in ipairs(get "streams".streams) do
      if one.name == "items" then stream = one end
    end
    assert.equal(2, stream.groups[1].dead)
    local letters = get("streams/letters", { stream = "items", group = "mailer" }).letters
    assert.equal(2, #letters)
    assert.is_nil(letters[1].error)
    assert.is_nil(letters[1].body)
    assert.is_true(letters[1].error_hidden)
    letters = get("streams/letters", { stream = "items", group = "mailer", values = "1" }).letters
    assert.matches("cannot mail <b>ann", letters[1].error)
    assert.is_string(letters[1].body)
    local function act(what, letter)
      local answer, value = post("streams/" .. what, { stream = "items", group = "mailer", letters = { letter } })
      assert.equal(200, answer.status, answer.body)
      return value.n
    end
    assert.equal(1, act("drop", letters[1].letter))
    assert.equal(1, act("retry", letters[2].letter))
    assert.same({}, must(orm:event_letters("items", "mailer")))
    for _, body in ipairs { { stream = "other", group = "mailer", letters = { "1-1" } },
      { stream = "items", letters = { "1-1" } },
      { stream = "items", group = "a b", letters = { "1-1" } }, { stream = "items", group = "mailer", letters = "all" },
      { stream = "items", group = "mailer", letters = { 7 } } } do
      assert.equal(400, post("streams/drop", body).status)
    end
    subscriber:close()
  end)

  it("shows callbacks, runs dead ones again and drops them", function()
    for i = 1, 2 do must(orm:callback("mail", { to = "ann@example.org" }, { key = "user " .. i })) end
    local worker = orm:callback_worker { max_tries = 1 }
    faults.await("two dead ones", function()
      must(worker:step())
      return must(orm:callback_stats()).dead == 2
    end)
    local answer = get "callbacks"
    assert.equal(2, answer.stats.dead)
    assert.equal(2, #answer.callbacks)
    for _, row in ipairs(answer.callbacks) do
      assert.is_nil(row.payload or row.error or row.key)
      assert.is_true(row.error_hidden)
    end
    answer = get("callbacks", { values = "1", state = "dead" })
    assert.matches("ann@example", answer.callbacks[1].payload)
    assert.matches("<b>ann</b>", answer.callbacks[1].error)
    local _, value = post("callbacks/retry", { numbers = { answer.callbacks[1].number } })
    assert.equal(1, value.n)
    assert.equal(1, must(orm:callback_stats()).waiting)
    _, value = post("callbacks/drop", { numbers = { answer.callbacks[2].number } })
    assert.equal(1, value.n)
    assert.equal(0, must(orm:callback_stats()).dead)
    worker:close()
    must(db:execute "DELETE FROM _regolith_callbacks WHERE state <> 'lock'")
  end)

  it("answers nonsense without failing", function()
    local told = {}
    local function note(fault) told[#told + 1] = tostring(fault) end
    local of = console_module.new(orm, { token = TOKEN, on_error = note })
    for _, path in ipairs { "letters/retry", "letters/drop", "letters/edit", "queue/pause", "streams/retry",
      "callbacks/drop" } do
      for _, body in ipairs { "", "nothing", "[]", "[1]", "7", "null", "{", '{"numbers":"x","number":{}}',
        '{"numbers":[1.5],"number":1e300,"letters":[[]],"stream":7,"queue":7,"values":7}', '{"queue":null}',
        '{"number":1,"values":{"":""}}', '{"number":"1","queue":"default","values":[1,2]}',
        '{"queue":"default\\u0000","numbers":[1]}' } do
        if not (path == "queue/pause" and body == '{"queue":null}') then
          local answer = send("POST", "/api/" .. path, { body = body, console = of })
          if answer.status ~= 200 then assert.equal(400, answer.status, path .. body .. answer.body) end
        end
      end
      local long = '{"a":"' .. ("x"):rep(70000) .. '"}'
      assert.equal(413, send("POST", "/api/" .. path, { body = long, console = of }).status)
    end
    for _, query in ipairs { "number=x", "number=-1", "number=1e999", "queue=%00", "limit=nan&since=inf", "%zz=%",
      "=&&=", "stream=&group=" } do
      for _, path in ipairs { "letters", "letter", "overview", "callbacks", "streams/letters" } do
        local answer = send("GET", "/api/" .. path, { query = query, console = of })
        if answer.status ~= 200 then assert.equal(400, answer.status, path .. query .. answer.body) end
      end
    end
    must(orm:resume())
    assert.same({}, told)
    local _, message = pcall(console.handle, console, { path = "/" })
    assert.matches("'method' and 'path'", message)
  end)

  --- A page that waits for the pool's only connection, while a clock ticks.
  local EVENTED = [[
    local regolith = require "regolith"
    local which, ticks, done = arg[1], 0, false
    local orm = assert(regolith.open { entities = {}, host = which })
    local console = require("regolith.console").new(orm, { token = "@token" })
    local db = orm:session()
    local function sleeper() assert(db:query "SELECT SLEEP(1.5)") end
    local function visitor()
      ticks = 0
      local answer = console:handle { method = "GET", path = "/console/api/letters",
        headers = { ["x-regolith-token"] = "@token" } }
      done = true
      print("status " .. answer.status .. (ticks >= 1 and " ticking" or " blocked"))
    end
    local visited = false
    local function visit(go)
      visited = true
      go()
    end
    if which == "luv" then
      local uv = require "luv"
      local timer = uv.new_timer()
      timer:start(10, 10, function()
        ticks = ticks + 1
        if done then timer:close() elseif not visited and ticks == 3 then visit(coroutine.wrap(visitor)) end
      end)
      coroutine.wrap(sleeper)()
      uv.run()
    else
      local cqueues = require "cqueues"
      local loop = cqueues.new()
      loop:wrap(sleeper)
      loop:wrap(function()
        while not done do
          cqueues.sleep(0.01)
          ticks = ticks + 1
          if not visited and ticks == 3 then visit(function() loop:wrap(visitor) end) end
        end
      end)
      assert(loop:loop())
    end
  ]]

  for _, which in ipairs { "luv", "cqueues" } do
    local here = pcall(require, which) and it or pending
    package.loaded[which] = nil

    here("answers in a program of " .. which .. ", whose loop goes on", function()
      local path = os.tmpname()
      faults.write_file(path, (EVENTED:gsub("@token", TOKEN)))
      local process = faults.spawn(path, { REGOLITH_MYSQL_URL = world.mysql_url(world.name, "&pool=1"),
        REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name }, which)
      local ok, text = process:wait(60)
      os.remove(path)
      assert.is_true(ok, text)
      assert.matches("status 200 ticking", text)
    end)
  end

  it("encodes text that is no UTF-8", function()
    assert.equal('{"a":["x?y",null]}', plain.encode { a = { "x\255y", 0 / 0 } })
  end)
end)
