-- SPDX-License-Identifier: MIT
-- What is measured, and against what. A benchmark has two sides, each a command that runs in a process
-- of its own, or `both` are one command; `prepare` is run once, `before` before each round of the side it
-- names. The ratio is ours to raw; where less is better (`less`) raw to ours, so that more than 1 is always in
-- our favour.

local MANY = 100           -- ids in a get_many, rows in a queued flush
local ROWS = 20000         -- rows of the tables that are read and changed
local CACHED_ROWS = 200000 -- rows in the process cache whose memory is measured
local UPDATE_BATCH = 250 -- rows in one statement of the raw update: the quickest of 64, 250 and 1000
local CONSUMER_ENTRIES = 2 -- entries of MANY operations in one transaction, as ours takes them

---@class bench.Context what `prepare`, `before` and the sides are given
---@field seconds number
---@field ops number operations of the memory benchmarks
---@field ours fun(side: string, number: number): string command
---@field raw fun(program: string, ...): string command
---@field run fun(command: string): table runs it; what it printed, by key

local function ours(side) return function(c) return c.ours(side, c.seconds) end end

local function raw(program, name, ...)
  local rest = { ... }
  return function(c) return c.raw(program, name, c.seconds, unpack(rest)) end
end

local function fill(table_name, rows)
  return function(c) c.run(c.raw("raw_mysql", "fill", 0, rows, table_name)) end
end

local function empty_redis(c) c.run(c.raw("raw_redis", "empty")) end

--- Fills the table and the entries in Redis that both sides then read.
local function fill_redis(c)
  fill("bench_user", ROWS)(c)
  empty_redis(c)
  c.run(c.ours("read.redis_fill", 1))
end

--- Queues a little and looks how long an entry of the queue is: the raw side queues as many bytes.
local function measure_entry(side)
  return function(c)
    empty_redis(c)
    c.run(c.ours(side, 0.05))
    c.entry_bytes = c.run(c.raw("raw_redis", "entry", "'{rg}:q:default'")).bytes
    assert(c.entry_bytes > 0, "nothing was queued")
    empty_redis(c)
  end
end

--- A way of the raw side to queue as many bytes for an operation.
local function queues(way)
  return function(c) return c.raw("raw_redis", way, c.seconds, math.ceil(c.entry_bytes / MANY)) end
end

local function consume(what, table_name, processes)
  return function(c)
    return c.raw("raw_consumer", what, c.seconds, ROWS, table_name, CONSUMER_ENTRIES, MANY, c.entry_bytes,
      processes or 1)
  end
end

local function prepare_changed(side)
  return function(c)
    fill("bench_changed", ROWS)(c)
    fill("bench_raw", ROWS)(c)
    if side then measure_entry(side)(c) end
  end
end

--- Before a round of our consumer: what the last round has inserted is gone.
local function empty_new(c)
  empty_redis(c)
  c.run(c.raw("raw_mysql", "fill", 0, 0, "bench_new"))
end

local benchmarks = {
  -- One lrucache hit whose table is copied may be 1.5 times as fast.
  { name = "process_hit", turns = true, unit = "gets/s", bar = 1 / 1.5, prepare = fill_redis,
    ours = ours "read.process_hit", raw = ours "read.lrucache_hit" },
  -- Memory that processes share: a hit copies the row. Beside the process' own.
  { name = "process_hit_shared", turns = true, unit = "gets/s", bar = 0.5, prepare = fill_redis,
    ours = ours "read.process_hit_shared", raw = ours "read.process_hit" },
  { name = "process_memory", unit = "B/row", bar = 1, less = true, rounds = 1,
    prepare = fill("bench_many", CACHED_ROWS),
    both = ours "memory.process_memory" },

  -- A value of a hundred bytes from the process: a get of lua-resty-lrucache, which no other process
  -- can make forget, gives the same string.
  { name = "user_cache_hit", turns = true, unit = "gets/s",
    ours = ours "cache.user_hit", raw = ours "cache.lrucache_get" },
  -- A search that finds ten rows: from the process' cache, and asked of MySQL.
  { name = "query_cache_hit", turns = true, unit = "searches/s", bar = 1, prepare = fill("bench_user", ROWS),
    ours = ours "cache.query_hit", raw = ours "cache.query_uncached" },

  -- The same keys with the same bytes: one GET a row; a pipeline of GETs, and one MGET, for MANY rows.
  { name = "redis_get", turns = true, unit = "rows/s", bar = 0.85, prepare = fill_redis,
    ours = ours "read.redis_get", raw = raw("raw_redis", "get", ROWS, "bench_user") },
  { name = "redis_get_many_100", turns = true, unit = "rows/s", bar = 0.8, prepare = fill_redis,
    ours = ours "read.redis_get_many", raw = raw("raw_redis", "get_many", ROWS, "bench_user") },
  { name = "redis_get_many_100_mget", turns = true, unit = "rows/s", prepare = fill_redis,
    ours = ours "read.redis_get_many", raw = raw("raw_redis", "mget", ROWS, "bench_user") },

  -- A prepared statement a row; one IN query in text for MANY rows.
  { name = "mysql_get", turns = true, unit = "rows/s", bar = 0.85, prepare = fill("bench_user", ROWS),
    ours = ours "read.mysql_get", raw = raw("raw_mysql", "get", ROWS, "bench_user") },
  { name = "mysql_get_many_100", turns = true, unit = "rows/s", bar = 0.8, prepare = fill("bench_user", ROWS),
    ours = ours "read.mysql_get_many", raw = raw("raw_mysql", "get_many", ROWS, "bench_user") },

  -- One transaction of 1000 rows: one INSERT; prepared UPDATE ... JSON_TABLE(?) of UPDATE_BATCH rows each.
  -- The second of each pair has both caches on, which the raw side knows nothing of.
  { name = "flush_insert_1000", turns = true, unit = "rows/s", bar = 0.8,
    ours = ours "write.insert", raw = raw("raw_mysql", "insert", 0, "bench_raw"), before = { ours = empty_new } },
  -- A transaction of one INSERT, the two sides in short turns: the disk's noise is most of the first. The second
  -- is without it: MySQL syncs once a second, so that the cost of the library itself shows.
  { name = "transaction_insert", unit = "rows/s", bar = 0.85, before = { both = empty_new },
    both = ours "turns.transaction" },
  { name = "transaction_insert_relaxed", unit = "rows/s", bar = 0.85, before = { both = empty_new },
    both = ours "turns.transaction_relaxed" },
  { name = "flush_insert_1000_cached", turns = true, unit = "rows/s",
    ours = ours "write.insert_cached", raw = raw("raw_mysql", "insert", 0, "bench_raw"),
    before = { ours = empty_new } },
  { name = "flush_update_1000", turns = true, unit = "rows/s", bar = 0.5, prepare = prepare_changed(),
    ours = ours "write.update", raw = raw("raw_mysql", "update", ROWS, "bench_raw", UPDATE_BATCH) },
  { name = "flush_update_1000_cached", turns = true, unit = "rows/s", prepare = prepare_changed(),
    ours = ours "write.update_cached", raw = raw("raw_mysql", "update", ROWS, "bench_raw", UPDATE_BATCH) },

  -- Flushes of MANY new rows against pipelines of MANY XADDs that carry as many bytes for an operation. The
  -- values were made beforehand on both sides; in the second, ours makes them (ten to a row) while it is measured.
  { name = "enqueue", unit = "ops/s", bar = 0.75, prepare = measure_entry "queue.enqueue",
    ours = ours "queue.enqueue", raw = queues "xadd", before = { ours = empty_redis } },
  { name = "enqueue_rows", unit = "ops/s", prepare = measure_entry "queue.enqueue_rows",
    ours = ours "queue.enqueue_rows", raw = queues "xadd", before = { ours = empty_redis } },
  -- The same against pipelines of MANY scripts, of an operation each, that promise what ours does: nothing twice,
  -- and a bound of the stream. And against one such script whose MANY operations are bytes made beforehand: the
  -- rest of ours is Lua rows that become them.
  { name = "enqueue_scripts", unit = "ops/s", bar = 0.8, prepare = measure_entry "queue.enqueue",
    ours = ours "queue.enqueue", raw = queues "scripts", before = { ours = empty_redis } },
  { name = "enqueue_script", unit = "ops/s", prepare = measure_entry "queue.enqueue",
    ours = ours "queue.enqueue", raw = queues "script", before = { ours = empty_redis } },
  { name = "enqueue_cached", unit = "ops/s", prepare = measure_entry "queue.enqueue_cached",
    ours = ours "queue.enqueue_cached", raw = queues "xadd", before = { ours = empty_redis } },

  -- What each class of durability costs, against "fast": a replica on this machine has it, Redis syncs its file
  -- before each answer, it is a transaction of MySQL.
  { name = "durability_replica", unit = "ops/s", ours = ours "queue.enqueue_replica", raw = ours "queue.enqueue",
    before = { ours = empty_redis, raw = empty_redis } },
  { name = "durability_fsync", unit = "ops/s", ours = ours "queue.enqueue_fsync", raw = ours "queue.enqueue",
    before = { ours = empty_redis, raw = empty_redis } },
  { name = "durability_sync", unit = "ops/s", ours = ours "queue.enqueue_sync", raw = ours "queue.enqueue",
    before = { ours = empty_new, raw = empty_redis } },

  -- Batches of the same size: read, ledger row locked, one statement, ledger moved, durable COMMIT.
  { name = "consume_insert", unit = "ops/s", bar = 0.8, or_rate = 15000, prepare = measure_entry "queue.enqueue",
    ours = ours "queue.consume_insert", raw = consume("insert", "bench_raw"), before = { ours = empty_new } },
  { name = "consume_update", unit = "ops/s", bar = 0.8, or_rate = 15000,
    prepare = prepare_changed "queue.enqueue_changed",
    ours = ours "queue.consume_update", raw = consume("update", "bench_raw"), before = { ours = empty_redis } },

  -- Four partitions, applied by four threads of one consumer: against four processes of the C loop; and by
  -- two and four threads against one that takes them in turn.
  { name = "consume_parallel_4", unit = "ops/s", bar = 0.8, or_rate = 15000,
    prepare = measure_entry "queue.enqueue",
    ours = ours "queue.consume_parallel_4", raw = consume("insert", "bench_raw", 4), before = { ours = empty_new } },
  { name = "consume_parallel_2_to_1", unit = "ops/s",
    ours = ours "queue.consume_parallel_2", raw = ours "queue.consume_parallel_1",
    before = { ours = empty_new, raw = empty_new } },
  { name = "consume_parallel_4_to_1", unit = "ops/s",
    ours = ours "queue.consume_parallel_4", raw = ours "queue.consume_parallel_1",
    before = { ours = empty_new, raw = empty_new } },

  -- Resident memory at the end against that after the first 100,000 operations.
  { name = "memory_reader", unit = "MiB", bar = 1 / 1.05, less = true, rounds = 1, prepare = fill_redis,
    both = function(c) return c.ours("memory.reader", c.ops) end },
  { name = "memory_consumer", unit = "MiB", bar = 1 / 1.05, less = true, rounds = 1,
    prepare = function(c)
      empty_new(c)
      c.run(c.ours("queue.queue_for_memory", c.ops))
    end,
    both = function(c) return c.ours("memory.consumer", c.ops) end },
}

-- Compare-and-set of N rows at once, the two sides in short turns: against N prepared statements, and against
-- the best form that one can write by hand (for one row that is the prepared statement). The delayed ones have
-- half a millisecond of network in each exchange with MySQL: what counts there is how many exchanges there are.
local EACH_WAY_US = 250

local function delayed(command)
  return function(c) return c.raw("raw_delay", EACH_WAY_US) .. " " .. command(c) end
end

local function add_cas(n, suffix, way)
  local function add(name, bar, side)
    benchmarks[#benchmarks + 1] = { name = name, unit = "rows/s", bar = bar, prepare = prepare_changed(),
      both = way(ours(side)) }
  end
  local name, side = "cas_" .. n .. suffix, "cas.both_" .. n
  add(name .. "_single", n == 1 and 0.85 or nil, side .. "_single")
  if n > 1 then add(name, 0.85, side) end
end

for _, n in ipairs { 1, 10, 50, 100, 1000 } do add_cas(n, "", function(command) return command end) end
for _, n in ipairs { 1, 10, 50, 100, 1000 } do add_cas(n, "_delayed", delayed) end

return benchmarks
