-- SPDX-License-Identifier: MIT
-- Runs the examples of the guide and of the README: every ```lua block of a chapter, in order, as one
-- program of its own against private servers. Blocks marked "lua norun" only have to be correct Lua.

local faults = require "support.faults"
local support = require "support.init"

local must = support.must
local root = os.getenv "REGOLITH_ROOT" or "."

local function read(path)
  local file = must(io.open(path, "r"))
  local text = file:read "*a"
  file:close()
  return text
end

--- Blocks of a Markdown text: { code, norun, line }.
local function blocks_of(text)
  local blocks, current, number = {}, nil, 0
  for line in (text .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    local info = line:match "^```(.*)$"
    if current and info == "" then
      blocks[#blocks + 1], current = current, nil
    elseif current then
      current.code[#current.code + 1] = line
    elseif info and info:match "^lua" then
      current = { code = {}, norun = info:match "norun" ~= nil, line = number }
    elseif info then
      current = { code = {}, other = true, line = number }
    end
  end
  return blocks
end

--- One program of all blocks, with line numbers as in the chapter.
local function program_of(blocks)
  local lines, at = {}, 0
  for _, block in ipairs(blocks) do
    if not block.norun and not block.other then
      while at < block.line do at = at + 1 lines[at] = "" end
      for _, line in ipairs(block.code) do at = at + 1 lines[at] = line end
    end
  end
  return table.concat(lines, "\n")
end

local function check_syntax(blocks, name)
  for _, block in ipairs(blocks) do
    if block.norun then must(loadstring(table.concat(block.code, "\n"), "=" .. name .. ":" .. block.line)) end
  end
end

--- Runs a program in a process of its own, with a database of its own.
local function run(name, program)
  local world, path = support.world(), os.tmpname()
  faults.write_file(path, program)
  local process = faults.spawn(path, {
    REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
    REGOLITH_PREFIX = world.name,
  })
  local ok, text = process:wait()
  os.remove(path)
  world:close()
  assert.is_true(ok, name .. ": " .. text:gsub("[^\n]*" .. path:gsub("%p", "%%%0"), name))
  return text
end

local chapters = {}
for path in io.popen("ls '" .. root .. "'/docs/*.md"):lines() do chapters[#chapters + 1] = path end

describe("the guide", function()
  it("has its chapters", function() assert.is_true(#chapters >= 9) end)

  for _, path in ipairs(chapters) do
    local name = path:match "[^/]+$"
    it("runs the examples of " .. name, function()
      local blocks = blocks_of(read(path))
      assert.is_true(#blocks > 0)
      check_syntax(blocks, name)
      run(name, program_of(blocks))
    end)
  end
end)

describe("the README", function()
  it("has a first program that runs", function()
    local blocks = blocks_of(read(root .. "/README.md"))
    local program, addresses = program_of(blocks):gsub("\n  [%a]+ +=[^\n]*://[^\n]*", "\n")
    assert.equal(2, addresses) -- those of the private servers come from the environment
    local said = run("README.md", program)
    assert.matches("^%d+%s+core%s+%d+", said)
  end)
end)
