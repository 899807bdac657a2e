-- SPDX-License-Identifier: MIT
-- The model of the cache protocol (scripts/model/cache.c): every state that it can reach, and for each
-- rule a way to a stale value once the rule is left out.

local support = require "support.init"

local must = support.must
local root = os.getenv "REGOLITH_ROOT" or "."

--- By rule, the least that shows why it is needed.
local NEEDED = {
  ["mark-after-sql"] = "1 1", ["locking-heal"] = "1 1", lease = "1 1", verify = "1 1", alone = "2 1",
  ["stay-exposed"] = "1 2", ["young-epoch"] = "1 1 loss", epoch = "1 1 loss", marked = "1 1 queue",
  suspect = "1 1 queue loss", pending = "2 2 queue loss", ["consumer-check"] = "2 2 queue loss",
}

local function compile(name)
  local program = os.tmpname()
  local source = root .. "/scripts/model/" .. name .. ".c"
  local text = support.shell("cc -O2 -Wall -Wextra -Werror -o " .. program .. " " .. source .. " && echo made")
  must(text == "made\n", text)
  return program
end

describe("the model of the cache protocol", function()
  local program

  setup(function() program = compile "cache" end)
  teardown(function() os.remove(program) end)

  local function run(words)
    local text = support.shell(program .. " " .. words)
    return text, text:find("holds in each", 1, true) ~= nil
  end

  it("serves no stale value in any of some millions of states", function()
    local states = 0
    for _, words in ipairs { "3 2", "2 2 queue loss" } do
      local text, ok = run(words)
      assert.is_true(ok, words .. ": " .. text)
      states = states + tonumber((must(text:match "^(%d+) states, the invariant holds in each")))
    end
    assert.is_true(states > 2000000, states .. " states")
  end)

  it("needs each of its rules", function()
    local n = 0
    for rule in run(""):gmatch "\n  (%S+)" do
      n = n + 1
      local words = must(NEEDED[rule], rule .. ": no example")
      local text, ok = run("--without " .. rule .. " " .. words)
      assert.is_false(ok, rule)
      assert.matches("serves what the database does not hold:\n  start", text, nil, nil, rule)
      assert.matches("database %d, entry %l+[^\n]*\n$", text, nil, nil, rule)
      if #words < 12 then assert.is_true(select(2, run(words)), rule) end
    end
    assert.equal(12, n)
  end)
end)

describe("the model of values that transactions set", function()
  local NEEDED_BY_VALUES = {
    mark = "1 1", lease = "1 1", alone = "1 1", late = "1 1", spoil = "1 1", outlast = "1 1",
  }
  local program

  setup(function() program = compile "value" end)
  teardown(function() os.remove(program) end)

  it("serves no stale value, and needs each of its rules", function()
    local text = support.shell(program .. " 2 2")
    local states = must(text:match "^(%d+) states, the invariant holds in each", text)
    assert.is_true(tonumber(states) > 100000, text)
    local n = 0
    for rule in support.shell(program .. " 2>&1"):gmatch "\n  (%S+)" do
      n = n + 1
      text = support.shell(program .. " --without " .. rule .. " " .. must(NEEDED_BY_VALUES[rule], rule))
      assert.matches("serves what the database does not hold:\n  start", text, nil, nil, rule)
    end
    assert.equal(6, n)
  end)
end)
