-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local native = require "regolith.native"
local record = require "regolith.record"
local regolith = require "regolith"
local must = require("support.init").must

local field, null, C = regolith.field, regolith.null, native.C

local Team = regolith.entity("team", { field.string "name" { nullable = true } })

--- One entity of every kind, in every form that matters.
local function every_kind()
  return regolith.entity("thing", {
    field.bool "bool", field.bool "bool_null" { nullable = true },
    field.int8 "int8", field.int16 "int16", field.int24 "int24", field.int32 "int32", field.int64 "int64",
    field.uint8 "uint8", field.uint16 "uint16", field.uint24 "uint24", field.uint32 "uint32", field.uint64 "uint64",
    field.int64 "int64_text" { int64 = "string" }, field.uint64 "uint64_cdata" { int64 = "cdata" },
    field.float "float", field.double "double", field.double "double_null" { nullable = true },
    field.decimal "decimal" { precision = 30, scale = 4 },
    field.string "string", field.string "string_null" { nullable = true }, field.text "text",
    field.binary "binary" { length = 16 }, field.blob "blob",
    field.enum "enum" { "new", "done" }, field.enum "enum_null" { "a", "b", nullable = true },
    field.set "set" { "a", "b", "c" },
    field.date "date" { nullable = true }, field.datetime "datetime" { nullable = true },
    field.time "time" { nullable = true }, field.datetime "seconds" { nullable = true, as = "number" },
    field.json "json" { nullable = true },
    field.ref "team" { Team }, field.refs "friends" { "team" },
    field.struct "address" {
      field.string "city", field.string "zip" { nullable = true }, field.ref "land" { "team" },
    },
    field.array "score" { of = field.uint32, n = 3 },
    field.array "maybe" { of = field.int32, n = 2, nullable = true },
    field.array "stop" { of = { field.string "city", field.bool "done" }, n = 2 },
  })
end

describe("codec", function()
  local orm, db, Thing, T

  setup(function()
    Thing = every_kind()
    orm = must(regolith.open {
      mysql = "mysql+unix:///nowhere.sock?user=u&db=d", entities = { Team, Thing }, lazy = true,
    })
    db = orm:session()
    T = orm._types[Thing]
  end)

  teardown(function()
    db:close()
    orm:close()
  end)

  --- Encodes as an insert (or an update of base) and gives the row, or nil and the error.
  local function encode(e, base)
    C.rg_builder_reset(T.builder)
    if T.encode(T.builder, e, base and base.data) < 0 then return nil, require("regolith.err").from_c(native.err) end
    local op = ffi.gc(C.rg_op_flush(orm._engine, db._c, 0, native.err), C.rg_op_free)
    local write, slot = base and C.RG_UPDATE or C.RG_INSERT, base and base.slot or -1
    local item = C.rg_op_flush_add(op, write, T.number, T.builder, slot, native.err)
    if item == -1000 then return "unchanged" end
    if item < 0 then return nil, require("regolith.err").from_c(native.err) end
    local view = ffi.new "rg_view"
    C.rg_op_flush_row(op, item, db._c, view)
    return view
  end

  local function round_trip(values)
    values.id = values.id or 1
    local view = must(encode(values))
    return T.decode(view.data), view
  end

  it("gives zero, empty or nil for what is absent", function()
    assert.same({
      id = 1, bool = false, int8 = 0, int16 = 0, int24 = 0, int32 = 0, int64 = 0, uint8 = 0, uint16 = 0, uint24 = 0,
      uint32 = 0, uint64 = 0, int64_text = "0", uint64_cdata = 0ULL, float = 0, double = 0, decimal = "0.0000",
      string = "", text = "", binary = "", blob = "", enum = "new", set = {}, friends = {},
      address = { city = "" }, score = { 0, 0, 0 }, maybe = { null, null },
      stop = { { city = "", done = false }, { city = "", done = false } },
    }, round_trip {})
  end)

  it("gives back the bounds of every kind", function()
    local values = {
      bool = true, bool_null = false, int8 = -128, int16 = -32768, int24 = -8388608, int32 = -2147483648,
      int64 = -2 ^ 53, uint8 = 255, uint16 = 65535, uint24 = 16777215, uint32 = 4294967295, uint64 = 2 ^ 53,
      int64_text = "-9223372036854775808", uint64_cdata = 18446744073709551615ULL,
      float = 0.5, double = -1.5e300, double_null = 0.1, decimal = "12345678901234567890.1234",
      string = "naïve 😀", string_null = "", text = string.rep("x", 60000), binary = "\0\1\255", blob = "\0\255",
      enum = "done", enum_null = "b", set = { "a", "c" }, date = "2026-01-31", datetime = "2026-01-31 12:00:00.500000",
      time = "-12:30:00", seconds = 1769860800.25, json = { a = { 1, "x", null } }, team_id = 7, friends = { 3, 1, 3 },
      address = { city = "Ulm", zip = "89073", land_id = 9 }, score = { 1, 2, 3 }, maybe = { 5, null },
      stop = { { city = "A", done = true }, { city = "B", done = false } },
    }
    local got = round_trip(record.copy(values))
    assert.matches("^2026%-01%-31 12:00:00%.50*$", got.datetime)
    got.datetime = values.datetime
    values.id = 1
    for name, v in pairs(values) do assert.same(v, got[name], name) end
  end)

  it("takes text, numbers and cdata for integers, exactly", function()
    local got = round_trip {
      int64 = "9007199254740993", uint64 = 18446744073709551615ULL, int32 = "-5", uint8 = 7LL, int64_text = 5,
      decimal = 1.5, double = "2.5", bool = 1, score = { "1", 2LL, 3 },
    }
    assert.equal("9007199254740993", got.int64)
    assert.equal("18446744073709551615", got.uint64)
    assert.equal(-5, got.int32)
    assert.equal(7, got.uint8)
    assert.equal("5", got.int64_text)
    assert.equal("1.5000", got.decimal)
    assert.equal(2.5, got.double)
    assert.is_true(got.bool)
    assert.same({ 1, 2, 3 }, got.score)
  end)

  it("takes entities for references, text for sets", function()
    local team = setmetatable({ id = 5 }, { rg_type = orm._types[Team] })
    local got = round_trip { team_id = team, friends = { team, 2, "3" }, set = "c,a" }
    assert.equal(5, got.team_id)
    assert.same({ 5, 2, 3 }, got.friends)
    assert.same({ "a", "c" }, got.set)
  end)

  it("takes null for NULL", function()
    local got = round_trip { string_null = null, json = null, team_id = null, address = null, maybe = { null, 1 } }
    assert.is_nil(got.string_null)
    assert.is_nil(got.json)
    assert.is_nil(got.team_id)
    assert.same({ null, 1 }, got.maybe)
  end)

  it("keeps JSON's values", function()
    for _, v in ipairs { false, "text", 5, 9007199254740993LL, regolith.array {}, { a = {} }, { null, { 1 } } } do
      assert.same(v, round_trip({ json = v }).json)
    end
    assert.equal("[]", regolith.json_encode(round_trip({ json = regolith.array {} }).json))
  end)

  it("names the field of a value that does not fit", function()
    local wrong = {
      { "int8", { int8 = 128 } }, { "uint8", { uint8 = -1 } }, { "int32", { int32 = 1.5 } },
      { "int32", { int32 = "x" } }, { "double", { double = 0 / 0 } }, { "string", { string = string.rep("x", 256) } },
      { "string", { string = "\255" } }, { "string", { string = {} } }, { "string", { string = print } },
      { "enum", { enum = "old" } }, { "set", { set = { "z" } } },
      { "set", { set = { 5 } } }, { "date", { date = "2026-02-30" } }, { "json", { json = print } },
      { "json", { json = { 1, nil, 3 } } }, { "friends", { friends = { "x" } } }, { "friends", { friends = { {} } } },
      { "team", { team_id = {} } }, { "address.city", { address = { city = string.rep("x", 256) } } },
      { "address", { address = { town = "x" } } }, { "address", { address = 5 } },
      { "score", { score = { 1, 2, 3, 4 } } },
      { "score[2]", { score = { 1, -1 } } }, { "stop[2].done", { stop = { {}, { done = {} } } } },
      { "decimal", { decimal = "1e5x" } }, { "binary", { binary = string.rep("x", 17) } },
      { "int8", { int8 = ffi.new "int[1]" } },
    }
    for _, case in ipairs(wrong) do
      case[2].id = 1
      local row, fault = encode(case[2])
      assert.is_nil(row, case[1])
      assert.equal("INVALID", fault.code)
      assert.equal(case[1], fault.field)
    end
  end)

  it("finds nothing changed in what was decoded", function()
    local e, view = round_trip {
      int64 = -5, float = 0.1, double = 0.1, decimal = "1.5", datetime = "2026-01-31 12:00:00.5",
      seconds = 1.5, time = "1:02:03",
      set = { "c", "a" }, json = { b = 1, a = { 2 } }, friends = { 2 }, uint64_cdata = 5ULL, enum_null = "a",
      maybe = { 1, null },
    }
    assert.equal("unchanged", encode(e, view))
    e.set = { "a", "c" }
    e.json = { a = { 2 }, b = 1 }
    e.datetime = "2026-01-31T12:00:00.50Z"
    e.decimal = "1.50"
    assert.equal("unchanged", encode(e, view))
    e.double = 0.2
    assert.equal("cdata", type((encode(e, view))))
  end)

  it("finds nothing changed in JSON that the server has formatted", function()
    local e = { id = 1, json = { b = 1, a = { 2 } } }
    C.rg_builder_reset(T.builder)
    must(T.encode(T.builder, e) == 0)
    local text = '{"b": 1.0, "a": [2]}'
    C.rg_builder_string(T.builder, Thing.by_path.json.number, text, #text, native.err)
    local op = ffi.gc(C.rg_op_flush(orm._engine, db._c, 0, native.err), C.rg_op_free)
    assert.equal(0, C.rg_op_flush_add(op, C.RG_INSERT, T.number, T.builder, -1, native.err))
    local view = ffi.new "rg_view"
    C.rg_op_flush_row(op, 0, db._c, view)
    local read = T.decode(view.data)
    assert.same({ a = { 2 }, b = 1 }, read.json)
    assert.equal("unchanged", encode(read, view))
    read.json.a[2] = 3
    assert.equal("cdata", type((encode(read, view))))
  end)
end)
