-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local fields = require "regolith.field"
local shape = require "regolith.shape"

local field, null = regolith.field, regolith.null

--- Nodes, columns by path, and faults of a list of fields.
local function flatten(list)
  local faults, by_path = {}, {}
  local nodes, columns = shape.flatten(list, function(path, text) faults[#faults + 1] = path .. ": " .. text end)
  for _, column in ipairs(columns) do by_path[column.path] = column end
  return nodes, by_path, faults
end

local function fault_of(f)
  local _, _, faults = flatten { f }
  return table.concat(faults, "\n")
end

describe("field", function()
  it("is usable with and without options", function()
    local plain, with = field.uint32 "visits", field.string "email" { length = 190 }
    assert.is_true(fields.is(plain))
    assert.equal("email", with.name)
    assert.equal(190, with.args.length)
    assert.equal('field.string "email"', tostring(with))
    assert.equal(190, field.string("email", { length = 190 }).args.length)
  end)

  it("raises at the caller for misuse of a constructor", function()
    local ok, message = pcall(function() field.string(5) end)
    assert.is_false(ok)
    assert.matches("field_spec.lua:%d+: field.string takes a name", message)
    assert.matches("takes a table of options", select(2, pcall(function() field.string "a" "b" end)))
    assert.matches("did you mean 'string'", select(2, pcall(function() return field.sting end)))
  end)

  it("has a constructor for each kind", function()
    for _, kind in ipairs {
      "bool", "int8", "int16", "int24", "int32", "int64", "uint8", "uint16", "uint24", "uint32", "uint64",
      "float", "double", "decimal", "string", "text", "binary", "blob", "enum", "set", "date", "datetime",
      "time", "json", "ref", "refs", "struct", "array",
    } do
      assert.is_function(field[kind])
    end
  end)
end)

describe("field:flatten", function()
  it("names paths and columns", function()
    local nodes, columns, faults = flatten {
      field.string "name",
      field.ref "team" { "team" },
      field.struct "address" {
        field.string "city", field.struct "geo" { field.double "lat" }, field.ref "land" { "land" },
      },
      field.array "score" { of = field.uint32, n = 2 },
      field.array "stop" { of = { field.string "city" }, n = 2 },
      field.string "nick" { column = "nick_name" },
    }
    assert.same({}, faults)
    local names = {}
    for path, column in pairs(columns) do names[path] = column.column end
    assert.same({
      name = "name", team = "team_id", nick = "nick_name",
      ["address.city"] = "address_city", ["address.geo.lat"] = "address_geo_lat", ["address.land"] = "address_land_id",
      ["score[1]"] = "score_1", ["score[2]"] = "score_2",
      ["stop[1].city"] = "stop_1_city", ["stop[2].city"] = "stop_2_city",
    }, names)
    assert.equal("team_id", nodes[2].key)
    assert.same({ "address", "geo", "lat" }, columns["address.geo.lat"].access)
    assert.same({ "address", "land_id" }, columns["address.land"].access)
    assert.same({ "stop", 2, "city" }, columns["stop[2].city"].access)
  end)

  it("hands element options of an array to each element", function()
    local _, columns = flatten { field.array "tag" { of = field.enum, "a", "b", n = 2, nullable = true } }
    assert.same({ "a", "b" }, columns["tag[2]"].words)
    assert.is_true(columns["tag[1]"].args.nullable)
  end)

  it("turns defaults into text", function()
    local _, columns = flatten {
      field.uint32 "n" { default = 5 }, field.bool "on" { default = true }, field.string "s" { default = "x" },
      field.double "d" { default = 0.1 }, field.json "j" { default = { 1, 2 } },
      field.set "f" { "a", "b", default = { "a", "b" } },
      field.uint64 "big" { default = 18446744073709551615ULL },
    }
    assert.equal("5", columns.n.default)
    assert.equal("1", columns.on.default)
    assert.equal("x", columns.s.default)
    assert.equal("0.1", columns.d.default)
    assert.equal("[1,2]", columns.j.default)
    assert.equal("a,b", columns.f.default)
    assert.equal("18446744073709551615", columns.big.default)
    _, columns = flatten {
      field.date "day" { as = "number", default = -86400 }, field.datetime "at" { as = "number", default = 86400.5 },
      field.time "hour" { as = "number", default = -1.5 }, field.refs "r" { "x", default = { 2, 2 ^ 53 } },
      field.refs "none" { "x", default = {} }, field.set "f" { "a", default = {} }, field.json "j" { default = null },
    }
    assert.equal("1969-12-31", columns.day.default)
    assert.equal("1970-01-02 00:00:00.500000", columns.at.default)
    assert.equal("-00:00:01.500000", columns.hour.default)
    assert.equal("[2,9007199254740992]", columns.r.default)
    assert.equal("[]", columns.none.default)
    assert.equal("", columns.f.default)
    assert.is_nil(columns.j.default)
  end)

  it("finds faults of options", function()
    assert.matches("email: unknown option 'lenght' %(did you mean 'length'%?%)",
      fault_of(field.string "email" { lenght = 5 }))
    assert.matches("option 'length' must be an integer", fault_of(field.string "email" { length = "5" }))
    assert.matches("option 'length' must be at least 1", fault_of(field.string "email" { length = 0 }))
    assert.matches("unknown option 'length'", fault_of(field.uint32 "n" { length = 5 }))
    assert.matches("option 'int64' must be 'number', 'string', 'cdata'", fault_of(field.int64 "n" { int64 = "text" }))
    assert.matches("has no values", fault_of(field.enum "e"))
    assert.matches("is there twice", fault_of(field.enum "e" { "a", "a" }))
    assert.matches("value 1 must be a string", fault_of(field.set "e" { 1 }))
    assert.matches("refers to one entity", fault_of(field.ref "team"))
    assert.matches("refers to one entity", fault_of(field.refs "team" { 5 }))
    assert.matches("its name must be letters", fault_of(field.string "e-mail"))
    assert.matches("'cached' needs", fault_of(field.uint32 "n" { cached = true }))
    assert.matches("both 'created' and 'updated'", fault_of(field.datetime "at" { created = true, updated = true }))
    assert.matches("'default' must be a value", fault_of(field.uint32 "n" { default = {} }))
    for _, default in ipairs { { {} }, { a = true }, { 1 }, { "a", nil, "a" } } do
      assert.matches("'default' must be a value", fault_of(field.set "f" { "a", default = default }))
    end
    for _, default in ipairs { { "x" }, { 1.5 }, { a = 1 } } do
      assert.matches("'default' must be a value", fault_of(field.refs "r" { "x", default = default }))
    end
    assert.matches("'default' must be a value", fault_of(field.date "d" { as = "number", default = 1 }))
    assert.matches("'default' must be a value", fault_of(field.datetime "d" { as = "number", default = 1e300 }))
  end)

  it("finds faults of structs and arrays, one for all elements", function()
    assert.matches("has no fields", fault_of(field.struct "s" {}))
    assert.matches("entry 1 is not a field", fault_of(field.struct "s" { "x" }))
    assert.matches("s.a: is there twice", fault_of(field.struct "s" { field.bool "a", field.bool "a" }))
    assert.matches("number of elements", fault_of(field.array "a" { of = field.bool }))
    assert.matches("kind of its elements", fault_of(field.array "a" { n = 3 }))
    assert.matches("kind of its elements", fault_of(field.array "a" { n = 3, of = field.struct }))
    local long, own = ("c"):rep(40), { column = "y" }
    assert.matches(long .. "%." .. long .. ": its path is longer than 64 characters",
      fault_of(field.struct(long, { column = "x", field.bool(long, own) })))
    local _, _, faults = flatten { field.array "a" { of = field.string, n = 9, lenght = 5 } }
    assert.equal(1, #faults)
  end)
end)
