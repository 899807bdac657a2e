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
    values = { false, true, "text", 0.1, 1e300, 9007199254740993LL, regolith.array {}, { a = {} }, { null, { 1, null } },
      { ["ü\n\"\\\0"] = "😀\0\31/" }, deep(40), { big = ("x"):rep(70000) } },
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

--- An entity of one kind: `plain`, `nullable`, `required` and `default`, as far as it has them.
local function entity_of(kind, cache_name)
  local K, make = KINDS[kind], field[kind]
  local fields = { field.uint32 "n", cache = CACHES[cache_name], table = "kind_" .. kind .. "_" .. cache_name }
  local function add(name, more) fields[#fields + 1] = make(name, with(K.args, more)) end
  if K.plain then
    add("plain", {})
  else
    if K.absent ~= nil or K.implied_null then add("plain", {}) end
    add("nullable", { nullable = true })
    add("required", { required = true })
    if K.default ~= nil then add("default", { default = K.default }) end
  end
  return regolith.entity(kind .. "_" .. cache_name, fields)
end

local Kind = regolith.entity("kind", { field.string "name" { nullable = true } })

local function read_of(v)
  if type(v) == "table" and #v == 2 and v.n == nil and not getmetatable(v) and v[2] ~= nil then return v[1], v[2] end
  return v, v
end

--- Pairs are told from values by being in no list of the kind's own.
local function value_pair(kind, v)
  if type(v) ~= "table" or getmetatable(v) then return v, v end
  if kind == "set" and type(v[1]) == "string" and type(v[2]) ~= "table" then return v, v end
  if kind == "refs" or kind == "struct" then return v, v end
  if kind == "array" and type(v[1]) ~= "table" then return v, v end
  if kind == "json" then return v, v end
  return read_of(v)
end

local function show(v)
  local text = type(v) == "table" and regolith.json_encode(v) or tostring(v)
  return #text > 200 and text:sub(1, 200) .. "..." or text
end

local function expect(e, name, wanted, where)
  local got = rawget(e, name)
  if not record.same(got, wanted) then
    error(string.format("%s.%s %s: %s instead of %s", getmetatable(e).__name, name, where, show(got), show(wanted)), 2)
  end
end

--- Names of the entity's own members for a kind.
local function columns_of(kind, E)
  local K, names = KINDS[kind], {}
  for _, name in ipairs { "plain", "nullable", "required", "default" } do
    if E.keys[name .. (K.suffix or "")] then names[#names + 1] = name end
  end
  return names
end

local function is_empty(v)
  return v == "" or (type(v) == "table" and next(v) == nil and getmetatable(v) == nil) or v == 0
end

--- Rows to write: values by member, and what is read then.
local function rows_of(kind, E)
  local K, rows = KINDS[kind], {}
  local suffix, names = K.suffix or "", columns_of(kind, E)
  local give_required, read_required
  for _, v in ipairs(K.values) do
    local give, read = value_pair(kind, v)
    if not is_empty(read) then give_required, read_required = give, read end
  end
  for _, v in ipairs(K.values) do
    local give, read = value_pair(kind, v)
    local row = { give = {}, read = {} }
    for _, name in ipairs(names) do
      local key = name .. suffix
      row.give[key], row.read[key] = give, read
      if name == "required" and is_empty(read) then row.give[key], row.read[key] = give_required, read_required end
    end
    rows[#rows + 1] = row
  end
  for _, explicit in ipairs { false, true } do -- absence, and NULL where it may be
    local row = { give = {}, read = {} }
    for _, name in ipairs(names) do
      local key = name .. suffix
      if name == "required" then row.give[key], row.read[key] = give_required, read_required
      elseif name == "plain" then row.read[key] = K.absent
      elseif name == "default" then row.read[key] = K.default
      elseif explicit then row.give[key] = null end
    end
    if explicit and K.implied_null then row.give["plain" .. suffix] = null end
    rows[#rows + 1] = row
  end
  return rows
end

describe("kinds", function()
  local world, orm
  local entities, by_name = { Kind }, {}

  setup(function()
    world = support.world()
    for _, kind in ipairs(NAMES) do
      for cache_name in pairs(CACHES) do
        local E = entity_of(kind, cache_name)
        by_name[kind .. "_" .. cache_name] = E
        entities[#entities + 1] = E
      end
    end
    orm = world:open(entities)
  end)

  teardown(function() world:close() end)

  it("have nothing left to change after the schema was applied", function()
    assert.same({}, must(orm:schema_diff()))
  end)

  local function check(e, row, where)
    for name, wanted in pairs(row.read) do expect(e, name, wanted, where) end
    for name in pairs(row.give) do
      if row.read[name] == nil then expect(e, name, nil, where) end
    end
  end

  --- Reads every row by each way there is.
  local function check_all(E, rows, ids)
    local by_get, fresh = orm:session(), orm:session()
    local list = must(by_get:get_many(E, ids))
    for i, row in ipairs(rows) do check(list[i], row, "from the caches") end
    must(orm:invalidate(E))
    for i, row in ipairs(rows) do check(fresh:get(E, ids[i]), row, "from MySQL") end
    fresh:clear()
    for i, row in ipairs(rows) do check(fresh:get(E, ids[i]), row, "from what a read has filled") end
    fresh:clear()
    for i, row in ipairs(rows) do check(fresh:search(E, "id = ?", ids[i]):one(), row, "by search") end
    assert.same({ true, 0 }, { fresh:flush() }) -- nothing differs from what was read
    for _, session in ipairs { by_get, fresh } do session:close() end
  end

  local function round_trip(E, kind, async)
    local db = orm:session()
    local rows, made, ids = rows_of(kind, E), {}, {}
    for i, row in ipairs(rows) do made[i] = must(db:new(E, record.copy(row.give))) end
    must(async and db:flush_async() or db:flush())
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
    for i, e in ipairs(made) do -- every row takes the values of the next one
      local next_row = rows[i % #rows + 1]
      for name in pairs(rows[i].read) do e[name] = record.copy(next_row.give[name]) end
      for name in pairs(rows[i].give) do e[name] = record.copy(next_row.give[name]) end
      e.n = i
    end
    must(async and db:flush_async() or db:flush())
    if async then support.drain(orm) end
    assert.same({}, must(orm:dead_letters()))
    local shifted = {}
    for i = 1, #rows do shifted[i] = rows[i % #rows + 1] end
    check_all(E, shifted, ids)
    db:close()
  end

  for _, kind in ipairs(NAMES) do
    for _, cache_name in ipairs { "none", "redis", "both", "process" } do
      for _, async in ipairs { false, true } do
        it(string.format("keep %s, caches: %s, %s", kind, cache_name, async and "queued" or "at once"), function()
          round_trip(by_name[kind .. "_" .. cache_name], kind, async)
        end)
      end
    end
  end
end)
