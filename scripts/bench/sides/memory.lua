-- SPDX-License-Identifier: MIT
-- Memory: bytes a row in the process cache costs, and whether a reader and a consumer stay as large as
-- they were. These sides print both numbers: ours=<n> raw=<n>.

local clock = require "clock"
local ffi = require "ffi"
local model = require "model"

ffi.cdef [[
typedef struct bench_mallinfo2 {
  size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
} bench_mallinfo2;
bench_mallinfo2 mallinfo2(void);
int getpagesize(void);
]]

local M = {}

local MIB = 1048576

local function print_both(ours, raw) io.write(string.format("ours=%.3f raw=%.3f\n", ours, raw)) end

-- ---- the process cache --------------------------------------------------------------------------

M.CACHED_ROWS = 200000 -- rows 1..CACHED_ROWS of "bench_many"

--- What malloc has given out, over all arenas, its own overhead included; Lua's heap is not malloc's.
local function allocated()
  collectgarbage()
  collectgarbage()
  local m = ffi.C.mallinfo2()
  return tonumber(m.uordblks + m.hblkhd)
end

--- Reads rows first..last through a session each MANY; the packed bytes of all of them.
local function read_all(orm, User, first, last)
  local bytes = 0
  for at = first, last, model.MANY do
    local ids = {}
    for i = 1, math.min(model.MANY, last - at + 1) do ids[i] = at + i - 1 end
    local db = orm:session()
    assert(db:get_many(User, ids))
    local C, view = require("regolith.native").C, ffi.new "rg_view"
    for i = 1, #ids do
      if C.rg_session_row(db._c, i - 1, view) == 1 then bytes = bytes + view.len end
    end
    db:close()
  end
  return bytes
end

--- ours: bytes that malloc gave out for a cached row; raw: its packed bytes + 64.
function M.process_memory()
  local User = model.entity("bench_many", { process = true })
  local orm = model.open({ User }, { process_cache_mb = 1024 })
  model.await_coherence(orm, User)
  read_all(orm, User, 1, 1)
  local before = allocated()
  local packed = read_all(orm, User, 1, M.CACHED_ROWS)
  local after = allocated()
  local rows = orm:stats().cache_entries
  assert(rows == M.CACHED_ROWS, "only " .. rows .. " rows are cached")
  print_both((after - before) / rows, packed / rows + 64)
  orm:close()
end

-- ---- resident memory ----------------------------------------------------------------------------

local function resident()
  collectgarbage()
  collectgarbage()
  local file = assert(io.open "/proc/self/statm")
  local pages = tonumber(file:read "*a":match "^%d+ (%d+)")
  file:close()
  return pages * ffi.C.getpagesize() / MIB
end

local WARM_OPS = 100000 -- until buffers have grown to the size they need

--- Calls step, which answers how many operations it did, until there were enough. ours: the resident
--- MiB at the end; raw: those after WARM_OPS.
local function watch(ops, step)
  local done, warm = 0, nil
  while done < ops do
    done = done + step()
    if not warm and done >= WARM_OPS then warm = resident() end
  end
  print_both(resident(), warm)
end

--- A reader whose process cache holds less than what it reads, so that all tiers are at work.
function M.reader(ops)
  local User = model.entity("bench_user", { process = true, redis = true })
  local orm = model.open({ User }, { process_cache_mb = 2 })
  local walk = model.walk(model.ROWS)
  watch(ops, function()
    local db, ids = orm:session(), walk()
    for i = 1, model.MANY / 2 do assert(db:get(User, ids[i])) end
    assert(db:get_many(User, ids))
    db:close()
    return model.MANY
  end)
  orm:close()
end

--- A consumer of operations that were queued before.
function M.consumer(ops)
  local User = model.entity("bench_new", { redis = true, process = true })
  local orm = model.open { User }
  local consumer = assert(orm:consumer())
  local started = clock.now()
  watch(ops, function()
    assert(clock.now() - started < 600, "the consumer is stuck")
    return assert(consumer:step(5))
  end)
  consumer:close()
  orm:close()
end

return M
