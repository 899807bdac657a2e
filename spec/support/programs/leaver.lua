-- SPDX-License-Identifier: MIT
-- A program that goes while its operations are under way: `leaver luv|cqueues close|collect|exit`.

require "support.programs.follow"
local which, how = ...
local loop = {}

if which == "luv" then
  local uv = require "luv"
  function loop.go(fn) coroutine.wrap(fn)() end
  function loop.after(ms, fn)
    local timer = uv.new_timer()
    uv.timer_start(timer, ms, 0, function()
      uv.close(timer)
      fn()
    end)
  end
  function loop.run() uv.run() end
  function loop.stop() uv.stop() end
else
  local cqueues = require "cqueues"
  local controller, stopped = cqueues.new(), false
  function loop.go(fn) controller:wrap(fn) end
  function loop.after(ms, fn)
    controller:wrap(function()
      cqueues.sleep(ms / 1000)
      fn()
    end)
  end
  function loop.run()
    while not stopped and not controller:empty() do assert(controller:step(1)) end
  end
  function loop.stop() stopped = true end
end

local regolith = require "regolith"
local orm = assert(regolith.open { entities = {} })

local function say(...)
  io.write(string.format(...), "\n")
  io.flush()
end

for i = 1, 5 do
  loop.go(function()
    local db = orm:session()
    if i == 1 then
      db:transaction(function() return db:query "SELECT SLEEP(30)" end)
    elseif i == 2 then
      db:connection(function(conn) return conn:query "SELECT SLEEP(30)" end)
    else
      local rows, err = db:query "SELECT SLEEP(30)"
      if how == "close" then say("ended %s", rows == nil and err.code or "well") end
    end
  end)
end

local deeds = {}
--- The orm is closed under them: each is told.
function deeds.close()
  orm:close()
  say "closed"
end
--- Everything is let go of; nobody waits for what is under way any more.
function deeds.collect()
  orm = nil
  loop.stop()
end
--- The Lua state ends under them.
function deeds.exit() loop.stop() end

loop.after(400, deeds[how])
loop.run()
if how == "exit" then
  say "left"
  os.exit(0, true)
end
loop = nil -- luacheck: ignore
collectgarbage()
collectgarbage()
say "left"
