-- SPDX-License-Identifier: MIT
-- Every kind of field with its extremes, nullable, required and with a default, through every
-- combination of caches, written at once and through the queue.

local record = require "regolith.record"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field, null = regolith.field, regolith.null

local function numbered(prefix, n, of)
  local words = of or {}
  for i = 1, n do words[i] = prefix .. i end
  return words
end

local function deep(n) return n == 0 and "end" or { at = { deep(n - 1) } } end

local ALL_BYTES = (function()
  local bytes = {}
  for i = 0, 255 do bytes[i + 1] = string.char(i) end
  return table.concat(bytes)
end)()

local MANY_IDS = (function()
  local ids = {}
  for i = 1, 500 do ids[i] = 2 ^ 53 - i end
  return ids
end)()

--- Kinds: options, values that come back as they went, the value of absence, what MySQL holds then.
--- A value is given as it is read; { give, read } where the two differ.
local KINDS = {
  bool = { values = { true, false, { 1, true }, { 0, false } }, absent = false, default = true },
  int8 = { values = { -128, 127, 0, { "-1", -1 } }, absent = 0, default = -7 },
  int16 = { values = { -32768, 32767 }, absent = 0, default = 300 },
  int24 = { values = { -8388608, 8388607 }, absent = 0, default = -70000 },
  int32 = { values = { -2147483648, 2147483647 }, absent = 0, default = 7 },
  int64 = {
    values = { -2 ^ 53, 2 ^ 53, "9007199254740993", "-9223372036854775808", "9223372036854775807",
      { 9223372036854775807LL, "9223372036854775807" } },
    absent = 0, default = -5,
  },
  uint8 = { values = { 255, 0, { 7ULL, 7 } }, absent = 0, default = 9 },
  uint16 = { values = { 65535 }, absent = 0, default = 9 },
  uint24 = { values = { 16777215 }, absent = 0, default = 9 },
  uint32 = { values = { 4294967295, { "4294967295", 4294967295 } }, absent = 0, default = 9 },
  uint64 = {
    values = { "18446744073709551615", "9223372036854775808", { 18446744073709551615ULL, "18446744073709551615" } },
    absent = 0, default = 9,
  },
  float = {
    values = { 0.5, -16777216, 3.4028234663852886e38, -3.4028234663852886e38, 1.401298464324817e-45,
      { 0.1, 0.10000000149011612 }, { 16777217, 16777216 } },
    absent = 0, default = 1.5,
  },
  double = {
    values = { 0.1, -1.7976931348623157e308, 1.7976931348623157e308, 5e-324, 2.2250738585072014e-308,
      2 ^ 53 + 2, 1 / 3, { "2.5", 2.5 } },
    absent = 0, default = 0.1,
  },
  decimal = {
    args = { precision = 65, scale = 30 },
    values = {
      "99999999999999999999999999999999999.999999999999999999999999999999",
      "-99999999999999999999999999999999999.999999999999999999999999999999",
      "0.000000000000000000000000000001", { "-0", "0." .. ("0"):rep(30) }, { 1.5, "1.5" .. ("0"):rep(29) },
    },
    absent = "0." .. ("0"):rep(30), default = "2.5" .. ("0"):rep(29),
  },
  string = {
    values = { "", "naïve", ("😀"):rep(255), "trailing  ", " leading", "a\0b", "\0", "NULL", "'\"`\\%_;--\n\r\t\26",
      "\244\143\191\191", "e\204\129 is not \195\169" },
    absent = "", default = "de'fault\\ ü", empty = true,
  },
  text = { args = { length = 200000 }, values = { "", ("ü"):rep(100000), "a\0\n\\'" }, absent = "", empty = true },
  binary = { values = { ALL_BYTES:sub(1, 255), ("\0"):rep(255), "\255\254", "x\0\0" }, absent = "", empty = true },
  blob = { args = { length = 200000 }, values = { "", ALL_BYTES:rep(700) }, absent = "", empty = true },
  enum = {
    args = numbered("w", 300, { default = "w2" }), values = { "w1", "w300" }, absent = "w1", default = "w2",
  },
  set = {
    args = numbered("f", 64), absent = {}, empty = true, default = { "f2", "f64" },
    values = { numbered("f", 64), { { "f64", "f1" }, { "f1", "f64" } }, { "f3,f2", { "f2", "f3" } }, { "f32", "f33" } },
  },
  date = { values = { "1000-01-01", "9999-12-31", "2024-02-29", "1969-12-31" }, default = "2000-02-29" },
  datetime = {
    values = { "1000-01-01 00:00:00", "9999-12-31 23:59:59.999999", "1969-12-31 23:59:59.999999",
      "2038-01-19 03:14:08", { "2026-01-31T12:00:00.5Z", "2026-01-31 12:00:00.500000" } },
    default = "2000-01-01 00:00:01",
  },
  time = {
    values = { "838:59:59", "-838:59:59", "-00:00:00.000001", { "1:02:03.5", "01:02:03.500000" } },
    absent = "00:00:00", default = "-12:30:00",
  },
  json = {
    values = { false, true, "text", 0.1, 1e300, 9007199254740993LL, regolith.array {}, { a = {} },
      { null, { 1, null } },
      { ["ü\n\"\\\0"] = "😀\0\31/" }, deep(15), { big = ("x"):rep(70000) } },
    implied_null = true, default = { a = { 1 } },
  },
  ref = { args = { "kind" }, values = { 1, 2 ^ 53 }, implied_null = true, suffix = "_id" },
  refs = { args = { "kind" }, values = { { 3, 1, 3 }, MANY_IDS }, absent = {}, empty = true },
  struct = {
    args = { field.string "city", field.struct "at" { field.double "lat" { nullable = true }, field.bool "exact" } },
    values = { { city = "Ulm", at = { lat = 48.4, exact = true } }, { city = "", at = { exact = false } } },
    absent = { city = "", at = { exact = false } }, plain = true,
  },
  array = {
    args = { of = field.int16, n = 3, nullable = true },
    values = { { 1, null, -3 }, { null, null, null }, { { 5 }, { 5, null, null } } },
    absent = { null, null, null }, plain = true,
  },
}

local NAMES = {}
for name in pairs(KINDS) do NAMES[#NAMES + 1] = name end
table.sort(NAMES)

local CACHES = {
  none = false, redis = { redis = true }, both = { process = true, redis = true }, process = { process = true },
}

local function with(args, more)
  local all = {}
  for k, v in pairs(args or {}) do if k ~= "default" then all[k] = v end end
  for k, v in pairs(more) do all[k] = v end
  return all
end

--- Each kind is there plain, nullable, required and with a default, as far as it can be: what is told
--- apart by `form`.
---@return { name: string, key: string, form: string, kind: table }[] members
local function members()
  local list = {}
  local function add(kind, form)
    local name = kind .. "_" .. form
    list[#list + 1] = { name = name, key = name .. (KINDS[kind].suffix or ""), form = form, kind = kind }
  end
  for _, kind in ipairs(NAMES) do
    local K = KINDS[kind]
    if K.absent ~= nil or K.implied_null then add(kind, "plain") end
    if not K.plain then add(kind, "nullable") end
    if not K.plain then add(kind, "required") end
    if K.default ~= nil then add(kind, "default") end
  end
  return list
end

local MEMBERS = members()

local function entity_of(cache_name)
  local fields = { field.uint32 "n", cache = CACHES[cache_name], table = "kinds_" .. cache_name }
  for _, member in ipairs(MEMBERS) do
    local K, more = KINDS[member.kind], {}
    if member.form == "default" then more.default = K.default
    elseif member.form ~= "plain" then more[member.form] = true end
    fields[#fields + 1] = field[member.kind](member.name, with(K.args, more))
  end
  return regolith.entity("kinds_" .. cache_name, fields)
end

local Kind = regolith.entity("kind", { field.string "name" { nullable = true } })

--- Kinds whose values are tables: a pair of given and read is told by its first element.
local IS_PAIR = {
  set = function(v) return type(v[2]) == "table" end,
  array = function(v) return type(v[1]) == "table" end,
  refs = function() return false end,
  struct = function() return false end,
  json = function() return false end,
}

--- What is given, and what is read then.
local function pair_of(kind, v)
  if type(v) ~= "table" then return v, v end
  if IS_PAIR[kind] and not IS_PAIR[kind](v) then return v, v end
  return v[1], v[2]
end

local function is_empty(v)
  return v == "" or v == 0 or (type(v) == "table" and next(v) == nil and getmetatable(v) == nil)
end

--- A value that a required field takes.
local function some_value(kind)
  for _, v in ipairs(KINDS[kind].values) do
    local give, read = pair_of(kind, v)
    if not is_empty(read) then return give, read end
  end
end

--- Row i: each kind's value i, or its last one.
local function row_of_values(i)
  local row = { give = {}, read = {} }
  for _, member in ipairs(MEMBERS) do
    local values = KINDS[member.kind].values
    local give, read = pair_of(member.kind, values[math.min(i, #values)])
    if member.form == "required" and is_empty(read) then give, read = some_value(member.kind) end
    row.give[member.key], row.read[member.key] = give, read
  end
  return row
end

--- A row of absent values, or of NULL given where it may be.
local function row_of_nothing(explicit)
  local row = { give = {}, read = {} }
  for _, member in ipairs(MEMBERS) do
    local K, key = KINDS[member.kind], member.key
    if member.form == "required" then row.give[key], row.read[key] = some_value(member.kind)
    elseif member.form == "default" then row.read[key] = K.default
    elseif member.form == "plain" then row.read[key] = K.absent end
    local nullable = member.form == "nullable" or (member.form == "plain" and K.implied_null)
    if explicit and nullable then row.give[key] = null end
  end
  return row
end

local function rows_to_write()
  local rows, most = {}, 0
  for _, kind in ipairs(NAMES) do most = math.max(most, #KINDS[kind].values) end
  for i = 1, most do rows[i] = row_of_values(i) end
  rows[#rows + 1] = row_of_nothing(false)
  rows[#rows + 1] = row_of_nothing(true)
  return rows
end

local function show(v)
  local text = type(v) == "table" and regolith.json_encode(v) or tostring(v)
  return #text > 200 and text:sub(1, 200) .. "..." or text
end

local function check(e, row, where)
  for _, member in ipairs(MEMBERS) do
    local got, wanted = rawget(e, member.key), row.read[member.key]
    if not record.same(got, wanted) then
      error(string.format("%s.%s %s: %s instead of %s", getmetatable(e).__name, member.name, where, show(got),
        show(wanted)), 2)
    end
  end
end

describe("kinds", function()
  local world, orm
  local by_cache, entities = {}, { Kind }

  setup(function()
    world = support.world()
    for cache_name in pairs(CACHES) do
      by_cache[cache_name] = entity_of(cache_name)
      entities[#entities + 1] = by_cache[cache_name]
    end
    orm = world:open(entities)
  end)

  teardown(function() world:close() end)

  it("have nothing left to change after the schema was applied", function()
    assert.same({}, must(orm:schema_diff()))
  end)

  --- Reads every row by each way there is.
  local function check_all(E, rows, ids)
    local db = orm:session()
    local list = must(db:get_many(E, ids))
    for i, row in ipairs(rows) do check(list[i], row, "from the caches") end
    must(orm:invalidate(E))
    db:clear()
    for i, row in ipairs(rows) do check(db:get(E, ids[i]), row, "from MySQL") end
    db:clear()
    for i, row in ipairs(rows) do check(db:get(E, ids[i]), row, "from what a read has filled") end
    db:clear()
    for i, row in ipairs(rows) do check(db:search(E, "id = ?", ids[i]):one(), row, "by search") end
    assert.same({ true, 0 }, { db:flush() }) -- nothing differs from what was read
    db:close()
  end

  local function flush(db, async)
    must(async and db:flush_async() or db:flush())
  end

  local function round_trip(E, async)
    local db, rows, made, ids = orm:session(), rows_to_write(), {}, {}
    for i, row in ipairs(rows) do made[i] = must(db:new(E, record.copy(row.give))) end
    flush(db, async)
    for i, row in ipairs(rows) do
      check(made[i], row, "after the flush")
      ids[i] = made[i].id
    end
    if async and E.cache.redis then
      local other = orm:session()
      for i, row in ipairs(rows) do check(other:get(E, ids[i]), row, "while it is queued") end
      other:close()
    end
    if async then support.drain(orm) end
    check_all(E, rows, ids)
    local shifted = {}
    for i, e in ipairs(made) do -- every row takes the values of the next one
      shifted[i] = rows[i % #rows + 1]
      for _, member in ipairs(MEMBERS) do
        local v = shifted[i].give[member.key]
        if v == nil then v = shifted[i].read[member.key] end
        rawset(e, member.key, record.copy(v))
      end
      e.n = i
    end
    flush(db, async)
    if async then support.drain(orm) end
    assert.same({}, must(orm:dead_letters()))
    check_all(E, shifted, ids)
    db:close()
  end

  for _, cache_name in ipairs { "none", "redis", "both", "process" } do
    for _, async in ipairs { false, true } do
      it(string.format("keep every value, caches: %s, written %s", cache_name,
        async and "through the queue" or "at once"), function()
        round_trip(by_cache[cache_name], async)
      end)
    end
  end
end)

--- Fields, what is given, and what is read: the same value in another form.
local FORMS = {
  { "int", field.int32, {}, 7LL, 7 }, { "uint", field.uint64, {}, 7ULL, 7 }, { "count", field.uint8, {}, "7", 7 },
  { "cdata", field.int64, { int64 = "cdata" }, 7, 7LL }, { "text", field.uint64, { int64 = "string" }, 7, "7" },
  { "bool", field.bool, {}, 1, true }, { "float", field.float, {}, 0.1, 0.10000000149011612 },
  { "credit", field.decimal, {}, "1.5", "1.50" }, { "price", field.decimal, {}, 1.5, "1.50" },
  { "day", field.date, { as = "number", nullable = true }, "1970-01-02", 86400 },
  { "date", field.date, { nullable = true }, 86400, "1970-01-02" },
  { "seen", field.datetime, { nullable = true }, "2026-01-31T12:00:00.5Z", "2026-01-31 12:00:00.500000" },
  { "moment", field.datetime, { as = "number", nullable = true }, "1970-01-01 00:00:01.5", 1.5 },
  { "hour", field.time, {}, "1:02", "01:02:00" }, { "roles", field.set, { "a", "b" }, { "b", "a" }, { "a", "b" } },
  { "named", field.set, { "a", "b" }, "b", { "b" } }, { "friends", field.refs, { "form" }, { "2", 1ULL }, { 2, 1 } },
  { "boss", field.ref, { "form" }, 5ULL, 5 }, { "tags", field.json, {}, null, nil },
}

describe("a value in another form than it is read in", function()
  local world, orm
  local list = { field.uint32 "n", cache = true,
    field.struct "inner" { field.decimal "sum", field.int8 "small", field.set "of" { "x", "y" } },
    field.array "points" { of = field.int16, n = 2 } }
  for _, form in ipairs(FORMS) do list[#list + 1] = form[2](form[1], record.copy(form[3])) end
  local Form = regolith.entity("form", list)

  setup(function()
    world = support.world()
    orm = world:open { Form }
  end)
  teardown(function() world:close() end)

  local function give(e)
    for _, form in ipairs(FORMS) do e[form[1]] = record.copy(form[4]) end
    e.inner, e.points = { sum = "2", small = 3LL, of = { "y", "x" } }, { 1LL, "2" }
  end

  local function told(v) return type(v) .. " " .. (type(v) == "table" and regolith.json_encode(v) or tostring(v)) end

  local function has_forms(e, where)
    for _, form in ipairs(FORMS) do
      local key = form[1] == "boss" and "boss_id" or form[1]
      assert.equal(told(form[5]), told(rawget(e, key)), where .. ": " .. key)
      if type(form[5]) == "table" then
        for i, v in ipairs(form[5]) do assert.equal(told(v), told(e[key][i]), where .. ": " .. key) end
      end
    end
    assert.same({ "2.00", "number 3", "x", "y" }, { e.inner.sum, told(e.inner.small), e.inner.of[1], e.inner.of[2] })
    assert.same({ "number 1", "number 2" }, { told(e.points[1]), told(e.points[2]) })
  end

  for _, way in ipairs { "flush", "flush_async" } do
    it("becomes that one with " .. way .. ", whether anything changed or not", function()
      local db = orm:session()
      local e, other = db:new(Form), db:new(Form)
      give(e)
      must(db[way](db))
      has_forms(e, "a new row")
      give(other)
      must(db[way](db))
      has_forms(other, "a changed row")
      give(e)
      assert.is_nil((db:dirty(e)))
      assert.same({ true, 0 }, { db[way](db) })
      has_forms(e, "the same again")
      e.n = 1
      give(e)
      must(db[way](db))
      has_forms(e, "one other field changed")
      if way == "flush_async" then support.drain(orm) end
      must(orm:invalidate(Form))
      has_forms(orm:session():get(Form, e.id), "from MySQL")
      has_forms(orm:session():get(Form, e.id), "from a cache")
      db:close()
    end)
  end

  it("becomes that one by itself, in a row of which nothing changed", function()
    local db = orm:session()
    local e = db:new(Form)
    give(e)
    must(db:flush())
    for _, form in ipairs(FORMS) do
      e[form[1]] = record.copy(form[4])
      assert.same({ true, 0 }, { db:flush() }, form[1])
      has_forms(e, form[1] .. " alone")
    end
    for name, given in pairs { roles = { "a", "b", n = 2 }, friends = { e, "1", n = 2 } } do
      e.friends, e.roles = { e.id, 1 }, { "a", "b" }
      must(db:flush())
      local first = rawget(e, name)[1]
      e[name] = given
      assert.same({ true, 0 }, { db:flush() }, name)
      assert.same({ first, name == "roles" and "b" or 1 }, rawget(e, name))
    end
    e.inner.of = { "y", "x" }
    assert.same({ true, 0 }, { db:flush() })
    assert.same({ "x", "y" }, e.inner.of)
    db:close()
  end)

  it("is no list with names in it, wherever they stand", function()
    local db = orm:session()
    local e = db:new(Form)
    give(e)
    must(db:flush())
    for _, name in ipairs { "roles", "friends" } do
      for room = 0, 8 do
        for extra = 0, 4 do
          local given = {}
          for i = 1, room do given["name" .. i] = true end
          given[1] = name == "roles" and "a" or 1 -- in the table's part for names
          given["name" .. extra] = true
          for i = 1, room do given["name" .. i] = i == extra or nil end
          e[name] = given
          local ok, err = db:flush()
          assert.is_nil(ok)
          assert.same({ "INVALID", name }, { err.code, err.field })
          db:discard(e)
        end
      end
    end
    db:close()
  end)
end)

describe("false within a list of JSON", function()
  it("is read as what it is, and stays", function()
    local world = support.world()
    local Doc = regolith.entity("doc", { field.uint8 "n", cache = true,
      field.array "parts" { of = field.json, n = 3 }, field.array "on" { of = field.bool, n = 3, nullable = true } })
    local orm = world:open { Doc }
    local db = orm:session()
    local e = db:new(Doc, { parts = { false, null, { false } }, on = { false, null, true } })
    must(db:flush())
    for _, drop in ipairs { false, true } do
      if drop then must(orm:invalidate(Doc)) end
      local other = orm:session()
      local read = other:get(Doc, e.id)
      assert.same({ { false, null, { false } }, { false, null, true } }, { read.parts, read.on })
      assert.same({ true, 0 }, { other:flush() }) -- and not NULL in its place
      other:close()
    end
    db:close()
    world:close()
  end)
end)

describe("a default", function()
  it("may be any form of the field's value; a version needs none", function()
    local world = support.world()
    local Given = regolith.entity("given", {
      field.date "day" { as = "number", default = -86400 }, field.datetime "at" { as = "number", default = 0.5 },
      field.time "hour" { as = "number", default = -1.5 }, field.refs "friends" { "given", default = { 7, 1 } },
      field.set "roles" { "a", "b", default = { "b", "a" } }, field.json "tags" { default = null },
      field.uint32 "version" { version = true, required = true }, cache = true,
    })
    local orm = world:open { Given }
    local db = orm:session()
    local e = db:new(Given)
    must(db:flush())
    must(db:execute "INSERT INTO given (id, friends) VALUES (5, '[]')")
    local read = orm:session()
    for _, row in ipairs { e, read:get(Given, e.id), read:get(Given, 5) } do
      assert.same({ -86400, 0.5, -1.5, "a", "b" }, { row.day, row.at, row.hour, row.roles[1], row.roles[2] })
      assert.is_nil(row.tags)
    end
    assert.same({ 7, 1 }, read:get(Given, e.id).friends)
    e.day = 0
    must(db:flush())
    assert.equal(2, e.version)
    assert.same({}, must(orm:schema_diff()))
    db:close()
    read:close()
    world:close()
  end)
end)

describe("the 64th value of a set", function()
  it("is compared as it is stored: by an index, with cas, by an expectation", function()
    local world = support.world()
    local Wide = regolith.entity("wide", { field.set("of", numbered("f", 64)), field.uint8 "n",
      unique = { one = { "of", "n" } }, index = { by_of = { "of" } } })
    local orm = world:open { Wide }
    local db = orm:session()
    for _, v in ipairs { { "f64" }, { "f1", "f64" }, numbered("f", 64), { "f63" } } do
      local e = db:new(Wide, { of = v })
      must(db:flush())
      assert.equal("applied", must(db:update(e, { n = 1 }, { cas = { of = v } })).outcome)
      assert.equal("applied", must(db:update(e, { of = { "f2" } }, { cas = "changes" })).outcome)
      assert.equal("applied", must(db:update_all { { e, { of = v }, cas = { "of", "n" } } })[1].outcome)
      db:expect(e, { "of" })
      e.n = 2
      must(db:flush())
      local other = orm:session()
      assert.equal(e.id, must(other:by(Wide, "one", { v, 2 })).id)
      assert.equal(e.id, must(other:all_by(Wide, "by_of", { v }))[1].id)
      other:close()
    end
    db:close()
    world:close()
  end)
end)

describe("a list of JSON that was assigned", function()
  it("stays a list when it is emptied, as one that was read does", function()
    local world = support.world()
    local Basket = regolith.entity("basket", { field.json "tags", field.uint8 "n" })
    local orm = world:open { Basket }
    local db = orm:session()
    local tags = { "a", { inner = { 1 } } }
    local e = db:new(Basket, { tags = tags })
    must(db:flush())
    assert.equal(tags, e.tags)
    local other = orm:session()
    local read = other:get(Basket, e.id)
    for _, basket in ipairs { e, read } do
      table.remove(basket.tags[2].inner)
      must((basket == e and db or other):flush())
      local sql = "SELECT tags FROM basket WHERE id = ?"
      assert.equal('["a",{"inner":[]}]', (orm:session():query(sql, e.id)[1].tags:gsub("%s", "")))
    end
    other:close()
    db:close()
    world:close()
  end)
end)
