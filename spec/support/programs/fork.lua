-- SPDX-License-Identifier: MIT
-- Uses an orm, forks, and uses it in the child and in the parent.

local ffi = require "ffi"
local regolith = require "regolith"
local field = regolith.field

ffi.cdef "int fork(void); int waitpid(int pid, int *status, int options); void _exit(int status);"

local Counter = regolith.entity("forked", { field.uint32 "n", cache = { process = true, redis = true } })
local orm = assert(regolith.open { entities = { Counter } })
assert(orm:schema_apply())
local db = orm:session()
local counter = db:new(Counter, { n = 1 })
assert(db:flush())
assert(orm:session():get(Counter, counter.id).n == 1)

local function go_on(who, n)
  local own = orm:session()
  local mine = assert(own:get(Counter, counter.id))
  mine.n = n
  assert(own:flush())
  assert(own:query("SELECT n FROM forked WHERE id = ?", counter.id)[1].n == n)
  assert(orm:session():get(Counter, counter.id).n == n)
  io.write(who, ": ", n, "\n")
  io.flush()
end

local pid = ffi.C.fork()
if pid == 0 then
  local ok, fault = pcall(go_on, "child", 2)
  if not ok then io.write("child: ", tostring(fault), "\n") end
  orm:close()
  io.flush()
  ffi.C._exit(ok and 0 or 1)
end
local status = ffi.new "int[1]"
ffi.C.waitpid(pid, status, 0)
assert(status[0] == 0, "the child failed")
go_on("parent", 3)
orm:close()
