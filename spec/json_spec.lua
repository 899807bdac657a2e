-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local native = require "regolith.native"

local encode, decode = regolith.json_encode, regolith.json_decode

describe("json:encode", function()
  it("sorts names by bytes", function()
    assert.equal('{"B":1,"a":2,"ab":3,"b":4}', encode { b = 4, ab = 3, a = 2, B = 1 })
  end)

  it("writes numbers with the fewest digits that read back the same", function()
    assert.equal("[1,0.1,0.3333333333333333,1e+300,9007199254740992,-7,0]",
      encode { 1, 0.1, 1 / 3, 1e300, 2 ^ 53, -7, -0.0 })
    assert.equal("1824192940134586", encode(1824192940134586))
    for _, v in ipairs { 5e-324, 1.7976931348623157e308, 2 ^ 53 + 2, 123456.789e-10, math.pi } do
      assert.equal(v, decode(encode(v)))
    end
  end)

  it("writes 64-bit integers exactly", function()
    assert.equal("[9007199254740993,18446744073709551615,-9223372036854775808]",
      encode { 9007199254740993LL, 18446744073709551615ULL, -9223372036854775807LL - 1 })
  end)

  it("escapes what must be escaped and nothing else", function()
    assert.equal([["\"\\\b\f\n\r\t\u0000\u001f/é😀"]], encode "\"\\\b\f\n\r\t\0\31/é😀")
  end)

  it("tells arrays from objects by the marker", function()
    assert.equal("{}", encode {})
    assert.equal("[]", encode(regolith.array {}))
    assert.equal("[]", encode(regolith.array()))
    assert.equal('{"a":[null,true,false]}', encode { a = { regolith.null, true, false } })
  end)

  it("refuses what JSON cannot say", function()
    local refused = {
      [{ 1, nil, 3 }] = "holes", [{ 1, a = 2 }] = "mixes", [{ [1.5] = 1 }] = "position",
      [{ [true] = 1 }] = "position", [regolith.array { a = 1 }] = "mixes",
      [{ 0 / 0 }] = "NaN", [{ math.huge }] = "infinite", [{ "\255" }] = "UTF%-8",
      [{ ["\237\160\128"] = 1 }] = "UTF%-8", [{ print }] = "function", [{ native.ffi.new "int[1]" }] = "cdata",
    }
    for value, why in pairs(refused) do
      local text, message = encode(value)
      assert.is_nil(text)
      assert.matches(why, message)
    end
  end)

  it("refuses values within themselves and deeper than 100", function()
    local loop = {}
    loop.loop = loop
    assert.matches("deeper than 100", select(2, encode(loop)))
    local deep = {}
    for _ = 1, 99 do deep = { deep } end
    assert.is_string(encode(deep))
    assert.is_nil(encode { deep })
  end)
end)

describe("json:decode", function()
  it("reads every kind of value", function()
    local v = decode ' {"a" : [1, -2.5e3, "x", true, false, null], "b": {}} '
    assert.same({ 1, -2500, "x", true, false, regolith.null }, v.a)
    assert.equal(native.array_mt, getmetatable(v.a))
    assert.is_nil(getmetatable(v.b))
    assert.equal(regolith.null, decode "null")
  end)

  it("keeps integers exact", function()
    assert.equal("number", type(decode "9007199254740992"))
    assert.equal(9007199254740993LL, decode "9007199254740993")
    assert.equal(-9223372036854775807LL - 1, decode "-9223372036854775808")
    assert.equal(18446744073709551615ULL, decode "18446744073709551615")
    assert.equal("18446744073709551616", decode "18446744073709551616")
    assert.equal("-9223372036854775809", decode "-9223372036854775809")
  end)

  it("gives back what was encoded", function()
    for _, text in ipairs {
      "[]", "{}", '{"a":[],"b":{}}', "[[[1]]]", '"\\u0000"', "[9007199254740993]", '{"":"é"}', "[0.1,1e+300,null]",
    } do
      assert.equal(text, encode(decode(text)))
    end
  end)

  it("reads escapes and surrogate pairs", function()
    assert.equal("é😀/\n\0", decode [["\u00e9\ud83d\ude00\/\n\u0000"]])
  end)

  it("names the byte where the text is wrong", function()
    local wrong = {
      [""] = 1, ["{"] = 2, ["[1,"] = 4, ["[1 2]"] = 4, ['"a'] = 3, ['"\\x"'] = 3, ['"\\u12g4"'] = 6,
      ['"\\ud800"'] = 2, ['"\\udc00"'] = 2, ["01"] = 1, ["1."] = 1, ["-"] = 1, ["1e"] = 1, ["1e999"] = 1,
      ["nul"] = 1, ["[1]x"] = 4, ['{"a"}'] = 5, ["{a:1}"] = 2, ['{"a":1,}'] = 8, ["[1,]"] = 4, ['"\1"'] = 2,
      ['"\255"'] = 2, ['"\192\128"'] = 2, ["NaN"] = 1, ["+1"] = 1, [".5"] = 1, ["[" .. "\0" .. "]"] = 2,
    }
    for text, byte in pairs(wrong) do
      local value, message, offset = decode(text)
      assert.is_nil(value)
      assert.equal(byte, offset, text)
      assert.matches("at byte " .. byte .. "$", message)
    end
  end)

  it("reads 100 levels and no more", function()
    local n = 100
    assert.is_table(decode(string.rep("[", n) .. string.rep("]", n)))
    local _, why = decode(string.rep("[", n + 1) .. string.rep("]", n + 1))
    assert.matches("deeper than 100", why)
  end)

  it("reads a number of many digits", function()
    assert.equal(1, decode("1." .. string.rep("0", 500) .. "1"))
  end)
end)

describe("regolith.null", function()
  it("is cjson's null", function()
    assert.equal(require("cjson").null, regolith.null)
  end)
end)
