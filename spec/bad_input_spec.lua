-- SPDX-License-Identifier: MIT
-- What a program gets wrong, and what an attacker would have it say: refused with the name of what is
-- wrong, or taken as nothing but the value it is.

local ffi = require "ffi"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field, null = regolith.field, regolith.null

local User = regolith.entity("user", {
  field.string "name" { length = 10, nullable = true },
  field.text "note" { length = 100 },
  field.binary "token" { length = 4, nullable = true },
  field.int8 "small", field.uint32 "visits", field.int64 "big", field.uint64 "huge",
  field.float "ratio", field.double "score", field.decimal "credit" { precision = 5, scale = 2 },
  field.bool "active", field.enum "state" { "new", "done" }, field.set "roles" { "a", "b" },
  field.date "born" { nullable = true }, field.datetime "seen" { nullable = true }, field.time "at" { nullable = true },
  field.datetime "moment" { nullable = true, as = "number" },
  field.json "tags", field.ref "boss" { "user" }, field.refs "friends" { "user" },
  field.struct "home" { field.string "city" { length = 5 } }, field.array "points" { of = field.uint8, n = 2 },
  unique = { name = { "name" } },
  index = { by_visits = { "visits", cached = true } },
  cache = true,
})

local NAN, INF = 0 / 0, 1 / 0

--- Field, value, what the message says.
local REFUSED = {
  { "name", ("x"):rep(11), "too long" }, { "name", ("ü"):rep(11), "too long" }, { "name", "\255", "UTF%-8" },
  { "name", "\192\128", "UTF%-8" }, { "name", "\237\160\128", "UTF%-8" }, { "name", "\240\159\152", "UTF%-8" },
  { "name", "\244\144\128\128", "UTF%-8" }, { "name", {} }, { "name", print }, { "name", true },
  { "note", ("x"):rep(65536), "too long" }, { "note", "a\128b", "UTF%-8" },
  { "token", "12345", "too long" }, { "token", {} },
  { "small", 128, "128" }, { "small", -129 }, { "small", 1.5 }, { "small", NAN }, { "small", INF }, { "small", "" },
  { "small", "1e2" }, { "small", " 1" }, { "small", "1 " }, { "small", "0x1" }, { "small", "--1" }, { "small", {} },
  { "small", "1\0" }, { "small", 128LL }, { "small", ("9"):rep(400) },
  { "visits", -1, "negative" }, { "visits", 4294967296 }, { "visits", -1LL }, { "visits", "-0.5" },
  { "big", 2 ^ 63 }, { "big", "9223372036854775808" }, { "big", "-9223372036854775809" },
  { "big", 9223372036854775808ULL }, { "huge", "18446744073709551616" }, { "huge", -1 }, { "huge", 2 ^ 64 },
  { "ratio", 1e39 }, { "ratio", NAN, "finite" }, { "ratio", -INF, "finite" }, { "score", NAN, "finite" },
  { "score", INF, "finite" }, { "score", "1e400" }, { "score", "nan" }, { "score", "inf" }, { "score", "1,5" },
  { "credit", 1000, "digits" }, { "credit", "1.234" }, { "credit", "1.2.3" }, { "credit", NAN }, { "credit", "1e9" },
  { "credit", "" }, { "credit", "-1000.00" },
  { "active", 2 }, { "active", "yes" }, { "active", {} },
  { "state", "old", "invalid value" }, { "state", 3 }, { "state", "new\0" }, { "state", {} },
  { "roles", { "a", "z" } }, { "roles", { 1 } }, { "roles", "a,z" }, { "roles", { {} } },
  { "born", "2026-02-30" }, { "born", "0000-00-00" }, { "born", "2026-1-1x" }, { "born", "31.01.2026" },
  { "born", "10000-01-01" }, { "born", {} }, { "born", true },
  { "seen", "2026-01-01 24:00:00" }, { "seen", "2026-01-01 10:60:00" }, { "seen", "2026-01-01 10:00:00.1234567" },
  { "seen", "2026-01-01T10:00:00+01:00", "UTC" }, { "seen", "now()" }, { "moment", 1e18 }, { "moment", NAN },
  { "at", "839:00:00" }, { "at", "10:61:00" }, { "at", "ten" },
  { "tags", print }, { "tags", { a = NAN } }, { "tags", { 1, nil, 3 } }, { "tags", "\255" }, { "tags", { [1.5] = 1 } },
  { "tags", { 1, a = 2 } }, { "tags", ffi.new "int[2]" },
  { "boss", -1 }, { "boss", "x" }, { "boss", 1.5 }, { "boss", 2 ^ 54 },
  { "friends", { 0 } }, { "friends", { -1 } }, { "friends", { "x" } }, { "friends", 5 }, { "friends", { {} } },
  { "home.city", "Berlin", "too long" }, { "points[2]", 256 },
}

--- Puts a value where a path leads.
local function values_of(path, v)
  if path == "boss" then return { boss_id = v } end
  if path == "home.city" then return { home = { city = v } } end
  if path == "points[2]" then return { points = { 1, v } } end
  return { [path] = v }
end

describe("a value that does not fit", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { User }
    db = orm:session()
  end)
  teardown(function()
    db:close()
    world:close()
  end)

  for _, way in ipairs { "flush", "flush_async" } do
    it("is refused by " .. way .. " with the field's name, and nothing is written", function()
      for i, case in ipairs(REFUSED) do
        local path, v, says = case[1], case[2], case[3]
        local e = db:new(User, values_of(path, v))
        local ok, err = db[way](db)
        local what = string.format("%s, value %d (%s)", path, i, tostring(v):sub(1, 40))
        assert.is_nil(ok, what)
        assert.same({ "INVALID", path, "user", e }, { err.code, err.field, err.entity, err.row }, what)
        if says then assert.matches(says, err.message, 1, false, what) end
        assert.is_true(#err.message < 300, what)
        db:discard(e)
      end
      assert.same({ true, 0 }, { db[way](db) })
      assert.same({}, db:query "SELECT id FROM `user`")
      assert.equal(0, must(orm:queues())[1].length)
    end)
  end

  it("is refused of an update too, which leaves the entity alone", function()
    local e = db:new(User, { name = "fine", visits = 5 })
    must(db:flush())
    for i, case in ipairs(REFUSED) do
      local path, v = case[1], case[2]
      local name = path == "boss" and "boss_id" or path
      local answer, err = db:update(e, { [name] = v })
      assert.is_nil(answer, path .. " " .. i)
      assert.same({ "INVALID", path }, { err.code, err.field })
    end
    assert.is_nil(db:dirty(e))
    db:delete(e)
    must(db:flush())
  end)

  it("is refused of a lookup and of a search", function()
    for _, case in ipairs { { "name", "\255" }, { "name", ("x"):rep(11) }, { "name", {} } } do
      local found, err = db:by(User, "name", { name = case[2] })
      assert.is_nil(found)
      assert.same({ "INVALID", "name" }, { err.code, err.field })
    end
    for _, v in ipairs { -1, 2 ^ 32, 1.5, "x", NAN } do
      local list, err = db:all_by(User, "by_visits", v)
      assert.is_nil(list)
      assert.same({ "INVALID", "visits" }, { err.code, err.field })
    end
    for _, v in ipairs { NAN, INF, -INF } do
      local list, err = db:search(User, "visits > ?", v):all()
      assert.is_nil(list)
      assert.equal("INVALID", err.code)
      assert.equal("INVALID", select(2, db:query("SELECT ?", v)).code)
    end
  end)

  it("is refused as an id", function()
    for _, id in ipairs { 1.5, NAN, INF, "x", "1 OR 1=1", "0x1", "1e3", " 1", "", true, {}, print } do
      assert.matches("bad_input_spec.lua:%d+: an id is a whole number",
        select(2, pcall(function() db:get(User, id) end)))
      assert.matches("bad_input_spec.lua:%d+: an id is a whole number",
        select(2, pcall(function() db:get_many(User, { 1, id }) end)))
    end
    for _, id in ipairs { 0, -1, 2 ^ 60, 1e300, "18446744073709551615", 18446744073709551615ULL, -1LL } do
      assert.is_nil((db:get(User, id)))
    end
  end)
end)

describe("misuse", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { User }
    db = orm:session()
  end)
  teardown(function()
    db:close()
    world:close()
  end)

  local function raises(pattern, fn)
    local ok, message = pcall(fn)
    assert.is_false(ok)
    assert.matches("bad_input_spec.lua:%d+: .*" .. pattern, message)
  end

  it("raises where the call was made, with a suggestion", function()
    local Stranger = regolith.entity("stranger", { field.bool "a" })
    local e = db:new(User)
    raises("has no field 'nmae' %(did you mean 'name'%?%)", function() e.nmae = 1 end)
    raises("has no field 'visitz'", function() return e.visitz end)
    raises("has no field 'home.town'", function() db:set(e, { ["home.town"] = 1 }) end)
    raises("has no field '5'", function() e[5] = 1 end)
    raises("has no field 'nmae'", function() db:new(User, { nmae = 1 }) end)
    raises("a table by field", function() db:new(User, 5) end)
    raises("not among those of this orm", function() db:new(Stranger) end)
    raises("an entity is expected", function() db:get("user", 1) end)
    raises("an entity is expected", function() db:delete {} end)
    raises("an entity is expected", function() db:update({}, {}) end)
    raises("no index 'nmae' %(did you mean 'name'", function() db:by(User, "nmae", 1) end)
    raises("not unique", function() db:by(User, "by_visits", 1) end)
    raises("needs a value for 'name'", function() db:by(User, "name", nil) end)
    raises("unknown option 'paeg'", function() db:all_by(User, "by_visits", 1, { paeg = 1 }) end)
    raises("option 'size' must be", function() db:all(User, { size = 0 }) end)
    raises("get_many takes a list", function() db:get_many(User, 5) end)
    raises("unknown option 'timeout'", function() orm:session { timeout = 1 } end)
    raises("option 'token' must be a string", function() orm:session { token = 5 } end)
    raises("unknown option 'quue' %(did you mean 'queue'", function() orm:consumer { quue = 1 } end)
    raises("unknown option 'destroy'", function() orm:schema_apply { destroy = true } end)
    raises("log takes a function", function() orm:log(5) end)
    raises("log: option 'values' must be a boolean", function() orm:log(print, { values = 1 }) end)
    raises("an entity is expected", function() orm:invalidate "nobody" end)
    raises("the number of a dead letter", function() orm:retry "some" end)
    raises("the number of a dead letter", function() orm:drop(0) end)
    raises("a limit is", function() orm:dead_letters("default", 0) end)
    db:discard()
  end)

  it("raises for SQL and parameters that do not fit each other", function()
    raises("1 placeholders, 0 parameters", function() db:query "SELECT ?" end)
    raises("1 placeholders, 2 parameters", function() db:execute("SELECT ?", 1, 2) end)
    raises("0 placeholders, 1 parameters", function() db:search(User, "1 = 1", 5) end)
    raises("parameter 1 is a function", function() db:query("SELECT ?", print) end)
    raises("parameter 2 is a cdata", function() db:query("SELECT ?, ?", 1, ffi.new "int[1]") end)
    raises("parameter 1 is a table", function() db:search(User, "id IN ?", { { 1 } }) end)
    raises("parameter 1 is a function", function() db:search(User, "id = ?", print) end)
    raises("an empty list stands only after IN", function() db:search(User, "id = ?", {}) end)
    raises("an SQL condition", function() db:search(User, 5) end)
    raises("a page is a whole number", function() db:search(User, "1 = 1"):page(1.5, 1) end)
    raises("limit takes a number of rows", function() db:search(User, "1 = 1"):limit(0) end)
  end)

  it("is reported by open, all of it at once", function()
    local _, err = regolith.open {
      mysql = { default = "mysql://u@h/d", ["lo gs"] = "mysql://u@h/d", other = { hots = "h", db = "d" } },
      redis = { host = "h", prot = 6379, password = "canary-1" }, entities = { User, "user", User },
      timout_ms = 5, prefix = 5, lazy = "yes", process_cache_mb = -1, log = { mysqll = true, values = 1 },
    }
    assert.equal("CONFIG", err.code)
    for _, text in ipairs {
      "mysql pool 'lo gs': its name must be", "unknown option 'hots' (did you mean 'host'?)",
      "unknown option 'prot' (did you mean 'port'?)", "entry 2 is not an entity", "two entities have this name",
      "unknown option 'timout_ms' (did you mean 'timeout_ms'?)", "option 'prefix' must be a string",
      "option 'lazy' must be a boolean", "option 'process_cache_mb' must be at least 0",
      "log: unknown option 'mysqll' (did you mean 'mysql'?)", "log: option 'values' must be a boolean",
    } do
      assert.is_truthy(err.message:find(text, 1, true), text .. " is not in " .. err.message)
    end
    assert.is_nil(err.message:find("canary", 1, true))
    assert.is_true(#err.faults >= 11)
  end)
end)

describe("names", function()
  local world
  setup(function() world = support.world() end)
  teardown(function() world:close() end)

  local function fault_of(make)
    local orm, err = regolith.open(world:config { make() })
    if orm then orm:close() end
    return orm == nil and err.code == "CONFIG" and err.message or nil
  end

  it("that SQL cannot have are refused when the orm is opened", function()
    local bool = field.bool
    local wrong = {
      ["NUL byte"] = {
        function() return regolith.entity("x", { bool "a", table = "a\0b" }) end,
        function() return regolith.entity("x", { bool "a" { column = "a\0" } }) end,
        function() return regolith.entity("x", { field.enum "a" { "a\0b" } }) end,
        function() return regolith.entity("x", { field.string "a" { default = "a\0b" } }) end,
        function() return regolith.entity("x", { bool "a", id_column = "i\0" }) end,
      },
      ["longer than 64"] = {
        function() return regolith.entity("x", { bool "a", table = ("x"):rep(65) }) end,
        function() return regolith.entity("x", { bool "a" { column = ("ü"):rep(65) } }) end,
      },
      ["valid UTF%-8"] = {
        function() return regolith.entity("x", { bool "a", table = "t\255" }) end,
        function() return regolith.entity("x", { field.set "a" { "\128" } }) end,
      },
      ["ends with a space"] = { function() return regolith.entity("x", { bool "a", table = "t " }) end },
      ["is empty"] = { function() return regolith.entity("x", { bool "a", table = "" }) end },
      ["control character"] = { function() return regolith.entity("x", { bool "a" { column = "a\nb" } }) end },
      ["letters, digits and underscores"] = {
        function() return regolith.entity("x; drop", { bool "a" }) end,
        function() return regolith.entity("x", { bool "a`b" }) end,
        function() return regolith.entity("x", { bool "" }) end,
        function() return regolith.entity("x", { bool "a", index = { ["i x"] = { "a" } } }) end,
      },
      ["not a utf8mb4 collation"] = {
        function() return regolith.entity("x", { field.string "a" { collation = "utf8mb4_bin; drop" } }) end,
        function() return regolith.entity("x", { field.string "a" { collation = "latin1_bin" } }) end,
      },
    }
    for text, list in pairs(wrong) do
      for i, make in ipairs(list) do assert.matches(text, fault_of(make) or "no fault", 1, false, text .. " " .. i) end
    end
    assert.matches("prefix", select(2, regolith.open(world:config({ User }, { prefix = "a{b}" }))).message)
  end)

  it("of any other kind are names and nothing else", function()
    local Odd = regolith.entity("odd", {
      field.string "a" { column = "we`i;r'd\\ -- ?", unique = true }, field.uint32 "b" { column = "select" },
      field.enum "c" { "it's", "b\\", "c\"d", "e`f", "ü😀", "a,b", "); DROP TABLE x; --", column = "what?" },
      field.string "d" { column = "a.b", default = "it's \\ \" -- \n ü" },
      table = "a:b%3a{c}`d'\"; -- ?", id_column = "i`d? %s", index = { by_b = { "b", "c", cached = true } },
      cache = { process = true, redis = true, all = true },
    })
    local Plain = regolith.entity("plain", { field.bool "a", table = "p`; --", id_column = "i`d? %s" })
    local orm = world:open { Odd, Plain }
    assert.same({}, must(orm:schema_diff()))
    local db, made = orm:session(), {}
    for i, word in ipairs(Odd.columns[3].words) do made[i] = db:new(Odd, { a = word, b = i, c = word }) end
    must(db:flush())
    for _, empty in ipairs { false, true } do
      if empty then must(orm:invalidate(Odd)) end
      local other = orm:session()
      for i, e in ipairs(made) do
        assert.equal(e.a, other:get(Odd, e.id).c)
        assert.equal("it's \\ \" -- \n ü", other:get(Odd, e.id).d)
        assert.equal(e.id, other:by(Odd, "a", e.a).id)
        assert.equal(e.id, other:all_by(Odd, "by_b", { i, e.a })[1].id)
      end
      assert.equal(#made, #other:all(Odd))
      other:close()
    end
    local plain = db:new(Plain, { a = true })
    must(db:flush())
    assert.same({ plain }, db:all(Plain)) -- no list of all is cached: MySQL is asked
    for i, e in ipairs(made) do e.b = e.b + 100 if i % 2 == 0 then db:delete(e) end end
    must(db:flush_async())
    assert.equal(#made, support.drain(orm))
    assert.same({}, must(orm:dead_letters()))
    assert.equal(math.ceil(#made / 2), orm:session():search(Odd, "`select` > ?", 100):count())
    db:close()
  end)
end)

--- What has broken out of quotes, keys and scripts elsewhere.
local CORPUS = {
  "' OR '1'='1", "\" OR \"\"=\"", "\\' OR 1=1 -- ", "\\", "\\\\'", "'; DROP TABLE victim; -- ", "`", "``", "/*", "*/",
  "--", "#",
  "?", "??", ":x", "@x", "%s%n%d", "%00", "\0", "a\0' OR 1=1", "\191\039 OR 1=1", "\26", "\r\n", "\r\nFLUSHALL\r\n",
  "*1\r\n$8\r\nFLUSHALL\r\n", "$-1", "{", "}", "{x}", "}{", "a:b", "a%3ab", ":", "r", "h", "null", "NULL", "nil",
  "true", "0", "1",
  "-1", "1e1", "0x41", "X'41'", "_utf8mb4 X'41'", "\xE2\x80\x98", "＇", "ʼ", "'+SLEEP(5)+'", "${jndi:x}", "<script>",
  "../../etc",
  "]]", "\"}", "{\"a\":1}", "[1,2]", "\\u0027", "\xEF\xBB\xBFx", "\xE2\x80\xAEx", " ", "  x  ", "ﬀ", "İ", "ß", "K",
  "Å", "A\204\138",
  ("x"):rep(41), ("'"):rep(60), ("\\"):rep(60),
}

describe("injection", function()
  local world, orm
  local Victim = regolith.entity("victim", {
    field.binary "key" { length = 100, unique = true },
    field.string "text" { length = 100, index = true, cached = true },
    field.json "json", field.blob "blob", field.struct "s" { field.string "in" }, field.uint32 "n",
    unique = { pair = { "text", "key" } },
    cache = { process = true, redis = true, all = true },
  })

  setup(function()
    world = support.world()
    orm = world:open { Victim }
  end)
  teardown(function() world:close() end)

  local function is_text(v) return not v:find("[\128-\255]") or regolith.json_encode(v) ~= nil end

  local function row_of(v)
    local text = is_text(v) and v or "not text"
    return { key = v, text = text, json = { [text] = { text } }, blob = v, s = { ["in"] = text } }
  end

  local function check(e, v)
    local wanted = row_of(v)
    for name, w in pairs(wanted) do assert.same(w, e[name]) end
  end

  local function check_all(ids)
    for _, empty in ipairs { false, true } do
      if empty then must(orm:invalidate(Victim)) end
      local db = orm:session()
      for i, v in ipairs(CORPUS) do
        local text = is_text(v) and v or "not text"
        check(db:get(Victim, ids[i]), v)
        assert.equal(ids[i], db:by(Victim, "key", v).id)
        assert.equal(ids[i], db:by(Victim, "pair", { text, v }).id)
        local found = false
        for _, e in ipairs(must(db:all_by(Victim, "text", text))) do
          assert.equal(text, e.text)
          found = found or e.id == ids[i]
        end
        assert.is_true(found)
        assert.equal(ids[i], db:search(Victim, "`key` = ? AND `blob` = ?", v, v):one().id)
        assert.equal(ids[i], db:search(Victim, "`key` IN ?", { v }):one().id)
        assert.equal(v, db:query("SELECT CAST(? AS BINARY) AS v", v)[1].v)
        assert.is_nil((db:by(Victim, "key", v .. "never")))
      end
      assert.equal(#CORPUS, #db:all(Victim))
      db:close()
    end
    assert.equal(#CORPUS, orm:session():query("SELECT COUNT(*) AS n FROM victim")[1].n)
  end

  for _, way in ipairs { "one by one", "many at once", "queued" } do
    it("does not happen through values, written " .. way, function()
      local db, made, ids = orm:session(), {}, {}
      for i, v in ipairs(CORPUS) do
        made[i] = must(db:new(Victim, row_of(v)))
        ids[i] = made[i].id
        if way == "one by one" then must(db:flush()) end
        if way == "queued" then must(db:flush_async()) end
      end
      must(db:flush())
      if way == "queued" then assert.equal(#CORPUS, support.drain(orm)) end
      check_all(ids)
      for i, e in ipairs(made) do -- updates of many: every row takes another's values, but the key
        local values = row_of(CORPUS[i % #CORPUS + 1])
        e.n, e.blob, e.json = i, values.blob, values.json
        if way == "one by one" then must(db:flush()) end
      end
      must(way == "queued" and db:flush_async() or db:flush())
      if way == "queued" then support.drain(orm) end
      for i, e in ipairs(made) do
        local read = orm:session():get(Victim, e.id)
        local values = row_of(CORPUS[i % #CORPUS + 1])
        assert.same({ values.blob, values.json, i }, { read.blob, read.json, read.n })
        assert.equal(CORPUS[i], read.key)
      end
      assert.same({}, must(orm:dead_letters()))
      for _, e in ipairs(made) do db:delete(e) end
      must(db:flush())
      assert.equal(0, orm:session():query("SELECT COUNT(*) AS n FROM victim")[1].n)
      db:close()
    end)
  end

  it("does not happen through values that lie next to each other in a key", function()
    local db = orm:session()
    local a = db:new(Victim, { text = "a", key = "bc" })
    local b = db:new(Victim, { text = "ab", key = "c" })
    local c = db:new(Victim, { text = "", key = "abc" })
    must(db:flush())
    for _ = 1, 2 do
      local other = orm:session()
      assert.equal(a.id, other:by(Victim, "pair", { "a", "bc" }).id)
      assert.equal(b.id, other:by(Victim, "pair", { "ab", "c" }).id)
      assert.equal(c.id, other:by(Victim, "pair", { "", "abc" }).id)
      assert.is_nil((other:by(Victim, "pair", { "abc", "" })))
      other:close()
    end
    for _, e in ipairs { a, b, c } do db:delete(e) end
    must(db:flush())
    db:close()
  end)

  it("does not happen through conditions of more than one statement", function()
    local db = orm:session()
    for _, where in ipairs {
      "1=1; DROP TABLE victim", "1=1 UNION SELECT 1", "1=1 INTO OUTFILE '/tmp/x'", "1=1 FOR UPDATE", "name = 'x",
      "(1=1", "1=1)",
      "1=1 PROCEDURE ANALYSE()", "/*!1=1*/ 1", "1 GROUP BY n", "1 HAVING 1", "1 /* open", "`n = 1",
    } do
      local list, err = db:search(Victim, where):all()
      assert.is_nil(list, where)
      assert.equal("INVALID", err.code)
    end
    for _, statement in ipairs {
      "SELECT 1; DROP TABLE victim", "SET NAMES gbk", "SET sql_mode = ''", "SET SESSION time_zone = '+02:00'",
      "USE mysql",
      "BEGIN", "COMMIT", "START TRANSACTION", "LOCK TABLES victim WRITE",
    } do
      local rows, err = db:query(statement)
      assert.is_nil(rows, statement)
      assert.is_true(err.code == "INVALID" or err.code == "SQL", statement)
    end
    assert.equal(0, db:search(Victim, "1 = 1"):count())
    db:close()
  end)
end)

describe("an empty place", function()
  it("is told from zero length and from NULL", function()
    local world = support.world()
    local Void = regolith.entity("void", {
      field.string "a" { nullable = true, unique = true }, field.blob "b" { nullable = true }, field.json "c",
      cache = true,
    })
    local orm = world:open { Void }
    local db = orm:session()
    local empty, nothing = db:new(Void, { a = "", b = "", c = "" }), db:new(Void)
    local word = db:new(Void, { a = "NULL", b = "NULL" })
    local explicit = db:new(Void, { a = null, b = null, c = null })
    must(db:flush())
    for _, drop in ipairs { false, true } do
      if drop then must(orm:invalidate(Void)) end
      local other = orm:session()
      local same = other:get(Void, empty.id)
      assert.same({ "", "", "" }, { same.a, same.b, same.c })
      for _, e in ipairs { nothing, explicit } do
        local read = other:get(Void, e.id)
        assert.is_nil(read.a)
        assert.is_nil(read.b)
        assert.is_nil(read.c)
      end
      assert.equal("NULL", other:get(Void, word.id).a)
      assert.equal(empty.id, other:by(Void, "a", "").id)
      assert.equal(word.id, other:by(Void, "a", "NULL").id)
      local found, err = other:by(Void, "a", null)
      assert.is_nil(found)
      assert.equal("INVALID", err.code) -- NULL is no unique value
      other:close()
    end
    db:close()
    world:close()
  end)
end)

describe("a value that its field would not take, in a row that others wrote", function()
  local Old = regolith.entity("old", {
    field.string "name" { length = 3 }, field.date "born" { nullable = true }, field.refs "friends" { "old" },
    field.uint8 "n", field.struct "home" { field.binary "code" { length = 2 } }, cache = true,
  })
  local world, orm

  setup(function()
    world = support.world()
    orm = world:open { Old }
    must(world.sql:connection(function(conn) -- as a later version has it
      return conn:execute("ALTER TABLE `" .. world.name .. "`.old MODIFY name VARCHAR(50) CHARACTER SET utf8mb4, "
        .. "MODIFY home_code VARBINARY(50)")
    end))
    local insert = "INSERT INTO old VALUES (?, 'a longer name', '0500-02-28', '[0,1]', 1, 'a longer code')"
    for id = 1, 2 do must(orm:session():execute(insert, id)) end
  end)
  teardown(function() world:close() end)

  for id, way in ipairs { "flush", "flush_async" } do
    it("stays as it is when other fields are written: " .. way, function()
      for _ = 1, 2 do -- from MySQL, from the caches
        local db = orm:session()
        local e = db:get(Old, id)
        assert.same({ "a longer name", "0500-02-28", { 0, 1 }, "a longer code" },
          { e.name, e.born, e.friends, e.home.code })
        assert.is_nil((db:dirty(e)))
        assert.same({ true, 0 }, { db[way](db) })
        e.n = e.n + 1
        must(db[way](db))
        support.drain(orm)
        db:close()
      end
      assert.same({}, must(orm:dead_letters()))
      local sql = "SELECT name, CAST(born AS CHAR) AS born, REPLACE(friends, ' ', '') AS friends, n, home_code "
        .. "FROM old WHERE id = ?"
      assert.same({ name = "a longer name", born = "0500-02-28", friends = "[0,1]", n = 3,
        home_code = "a longer code" },
        orm:session():query(sql, id)[1])
      local db = orm:session()
      local e = db:get(Old, id)
      e.name = "another name"
      local ok, err = db[way](db)
      assert.is_nil(ok)
      assert.same({ "INVALID", "name" }, { err.code, err.field })
      e.name = "abc"
      must(db[way](db))
      support.drain(orm)
      assert.equal("abc", orm:session():query("SELECT name FROM old WHERE id = ?", id)[1].name)
      db:close()
    end)
  end

  it("is told when it has no place in Lua", function()
    local db = orm:session()
    must(db:execute [[INSERT INTO old (id, name, friends, home_code) VALUES (9007199254740993, "", "[]", "")]])
    local list, err = db:search(Old, "id > 2"):all()
    assert.is_nil(list)
    assert.same({ "SCHEMA", "id", "old" }, { err.code, err.field, err.entity })
    db:close()
  end)
end)
