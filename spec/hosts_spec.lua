-- SPDX-License-Identifier: MIT
-- The same program in luv and in cqueues.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

for _, which in ipairs { "luv", "cqueues" } do
  local run = pcall(require, which) and describe or pending
  package.loaded[which] = nil

  run("a program of " .. which, function()
    local world

    setup(function() world = support.world() end)
    teardown(function()
      faults.kill_connections(world) -- a server does not see at once that its client has gone
      world:close()
    end)

    local function environment(more)
      return { REGOLITH_MYSQL_URL = world.mysql_url(world.name, more), REGOLITH_REDIS_URL = world.redis_url(),
        REGOLITH_PREFIX = world.name }
    end

    it("does everything in coroutines that overlap, while a clock ticks", function()
      local process = faults.spawn("evented", environment "&pool=16", which)
      local ok, text = process:wait(60)
      assert.is_true(ok, text)
      for line in text:gmatch "[^\n]+" do
        if line:match "^[%a ]+: " then assert.matches(": ok$", line) end
      end
      local _, oks = text:gsub(": ok\n", "")
      assert.equal(4 + 1 + 1 + 1 + 1 + 3 + 1 + 1 + 40 + 1, oks, text)
      for _, said in ipairs { "overlap true", "ticking true", "sum 820", "told of the loss",
        "sharing in use by another coroutine, done", "left the loop", "closed" } do
        assert.is_truthy(text:find(said, 1, true), said .. " is missing in " .. text)
      end
    end)

    -- Not under AddressSanitizer, whose allocator has locks that a child inherits as they are: forked while other
    -- threads allocate, as here, it may wait for ever in its own malloc.
    if not support.is_under_asan() then
      it("tells a forked child that the orm is its parent's, who goes on undisturbed", function()
        local process = faults.spawn("forked_loop", environment "&pool=8", which)
        local ok, text = process:wait(60)
        assert.is_true(ok, text)
        local function times(said) return select(2, text:gsub(said, "")) end
        assert.equal(10, times "child: MISUSE: this process was forked off .- open another one here", text)
        assert.equal(5, times "child has 7\n", text)
        assert.matches("left over: 0\n$", text)
      end)
    end

    -- Closed, collected, or ended with its Lua state: nothing goes on without it, and nothing crashes.
    for _, how in ipairs { "close", "collect", "exit" } do
      it("may go while operations are under way: " .. how, function()
        local started = faults.now()
        local process = faults.spawn("leaver", environment "&pool=8", which, how)
        local ok, text = process:wait(25)
        assert.is_true(ok, text)
        assert.matches("left\n$", text)
        if how == "close" then assert.equal(3, select(2, text:gsub("ended %u+\n", "")), text) end
        assert.is_true(faults.now() - started < 20)
      end)
    end
  end)
end

describe("the option 'host'", function()
  it("is checked, and says what is missing", function()
    local orm, err = regolith.open { mysql = "mysql://x@127.0.0.1/x", entities = {}, host = "libuv", lazy = true }
    assert.is_nil(orm)
    assert.matches("option 'host' must be 'nginx', 'cqueues', 'luv', 'blocking'", tostring(err))
    orm, err = regolith.open { mysql = "mysql://x@127.0.0.1/x", entities = {}, host = "nginx", lazy = true }
    assert.is_nil(orm)
    assert.equal("CONFIG", err.code)
    assert.matches("not run by nginx", tostring(err))
  end)
end)
