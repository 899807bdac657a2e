-- SPDX-License-Identifier: MIT
-- Runs the examples of the guide and of the README: every ```lua block of a chapter, in order, in one
-- program, against private servers. Blocks marked "lua norun" only have to be correct Lua.

local support = require "support"

local root = os.getenv "REGOLITH_ROOT" or "."

local function read(path)
  local file = assert(io.open(path, "r"))
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
      current = { code = {}, norun = true, skip = true, line = number }
    end
  end
  return blocks
end

--- One program of all blocks, with line numbers as in the chapter.
local function program_of(blocks)
  local lines, at = {}, 0
  for _, block in ipairs(blocks) do
    if not block.norun then
      while at < block.line do at = at + 1 lines[at] = "" end
      for _, line in ipairs(block.code) do at = at + 1 lines[at] = line end
    end
  end
  return table.concat(lines, "\n")
end

local chapters = {}
for path in io.popen("ls '" .. root .. "'/docs/*.md"):lines() do chapters[#chapters + 1] = path end

describe("the guide", function()
  local server

  before_each(function() server = support.database() end)
  after_each(function() server:drop() end)

  it("has its chapters", function() assert.is_true(#chapters >= 9) end)

  for _, path in ipairs(chapters) do
    local name = path:match "[^/]+$"
    it("runs the examples of " .. name, function()
      local blocks = blocks_of(read(path))
      assert.is_true(#blocks > 0)
      for _, block in ipairs(blocks) do
        if block.norun and not block.skip then
          assert(loadstring(table.concat(block.code, "\n"), "=" .. name .. ":" .. block.line))
        end
      end
      server:with_environment(function()
        assert(loadstring(program_of(blocks), "=" .. name))()
      end)
    end)
  end
end)
