-- SPDX-License-Identifier: MIT
-- Forks while an event loop has operations under way: `forked_loop luv|cqueues`. The child is told that the orm is
-- not for it, and opens another one; the parent goes on as if nothing had been.

local ffi = require "ffi"
require "support.programs.follow"
local which = ...

ffi.cdef "int fork(void); int waitpid(int pid, int *status, int options);"

local loop = {}
if which == "luv" then
  local uv = require "luv"
  function loop.go(fn) coroutine.wrap(fn)() end
  loop.run = uv.run
else
  local controller = require("cqueues").new()
  function loop.go(fn) controller:wrap(fn) end
  function loop.run() assert(controller:loop()) end
end

local regolith = require "regolith"
local Item = regolith.entity("item", { regolith.field.string "name", cache = true })
local orm = assert(regolith.open { entities = { Item } })
assert(orm:schema_apply())

local function say(...)
  io.write(string.format(...), "\n")
  io.flush()
end

--- Everything that the child tries with what it inherited, and with an orm of its own.
local function child(db, lock)
  local rows, err = db:query "SELECT 1"
  say("child: %s", rows and "well" or tostring(err))
  rows, err = orm:session():get(Item, 1)
  say("child: %s", rows and "well" or tostring(err))
  lock:drop()
  db, lock = nil, nil -- luacheck: ignore
  collectgarbage()
  collectgarbage()
  local own = assert(regolith.open { entities = { Item }, host = "blocking" })
  say("child has %s", assert(own:session():query "SELECT 7 AS n")[1].n)
  own:close()
  orm:close()
  os.exit(0)
end

local left = 40
for i = 1, left do
  loop.go(function()
    local db = orm:session()
    assert(db:query("SELECT ?, SLEEP(0.02)", i))
    if i % 8 == 0 then
      local lock = assert(orm:lock("forked " .. i))
      local pid = ffi.C.fork()
      if pid == 0 then child(db, lock) end
      local status = ffi.new "int[1]"
      ffi.C.waitpid(pid, status, 0)
      assert(status[0] == 0, "the child failed")
      assert(lock:held() and lock:release())
    end
    assert(db:query("SELECT SLEEP(0.02)"))
    db:close()
    left = left - 1
  end)
end
loop.run()
say("left over: %d", left)
orm:close()
