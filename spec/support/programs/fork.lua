-- SPDX-License-Identifier: MIT
-- Uses an orm, forks, and uses it in the child and in the parent.

local ffi = require "ffi"
local regolith = require "regolith"
local field = regolith.field

ffi.cdef "int fork(void); int waitpid(int pid, int *status, int options); void _exit(int status);"

local Counter = regolith.entity("forked", { field.uint32 "n", cache = { process = true, redis = true } })
local Flake = regolith.entity("flake", { field.uint32 "n", ids = "snowflake" })
local orm = assert(regolith.open { entities = { Counter, Flake } })
assert(orm:schema_apply())
local db = orm:session()
local counter = db:new(Counter, { n = 1 })
assert(db:flush())
assert(orm:session():get(Counter, counter.id).n == 1)
assert(db:new(Counter, { n = 10 }) and db:flush_async()) -- the orm has sent something, and has ids at hand

local function go_on(who, n)
  local own = orm:session()
  local mine = assert(own:get(Counter, counter.id))
  mine.n = n
  assert(own:flush())
  assert(own:query("SELECT n FROM forked WHERE id = ?", counter.id)[1].n == n)
  assert(orm:session():get(Counter, counter.id).n == n)
  own:new(Flake, { n = n })
  local made, why = own:flush()
  io.write(who, " has ", made and "a snowflake" or tostring(why), "\n")
  own:discard()
  for i = 1, 5 do
    own:new(Counter, { n = 100 * n + i })
    assert(own:flush())
    own:new(Counter, { n = 1000 * n + i })
    assert(own:flush_async())
  end
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
-- Each has ids of its own, and what both have queued is all there.
local consumer = orm:consumer()
repeat until assert(consumer:step(0.1)) == 0
consumer:close()
local rows = assert(orm:session():query "SELECT COUNT(*) AS n FROM forked")
assert(rows[1].n == 1 + 1 + 4 * 5, rows[1].n .. " rows")
orm:close()
