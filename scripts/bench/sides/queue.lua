-- SPDX-License-Identifier: MIT
-- Our sides of the queue: flush_async of MANY rows at a time, and the consumer.

local clock = require "clock"
local model = require "model"
local streams = require "regolith.events.stream"

local M = {}

--- One flush of MANY new rows.
local function enqueue_new(orm, User, first, opts)
  local db = orm:session()
  for i = first, first + model.MANY - 1 do assert(db:new(User, model.row(i))) end
  assert(db:flush_async(opts))
  db:close()
end

--- Values that were made before anything is measured, as those of the raw side are.
local function enqueue_made(orm, User, first, opts, made)
  local db = orm:session()
  for i = first, first + model.MANY - 1 do assert(db:new(User, made[i % #made + 1])) end
  assert(db:flush_async(opts))
  db:close()
end

local function make_values()
  local made = {}
  for i = 1, model.MANY do made[i] = model.row(i) end
  return made
end

--- `around` changes the server beforehand, by another orm, and gives what undoes that. as_made: the values
--- are made while it is measured.
local function enqueues(cache, opts, around, as_made)
  return function(seconds)
    local User = model.entity("bench_new", cache)
    local undo = around and around(model.open { User })
    local orm, i = model.open({ User }, { queues = { default = { replica_ms = 10000 } } }), 0
    local enqueue, made = as_made and enqueue_new or enqueue_made, not as_made and make_values() or nil
    clock.measure(seconds, function()
      enqueue(orm, User, i, opts, made)
      i = i + model.MANY
      return model.MANY
    end)
    if undo then undo() end
    orm:close()
  end
end

M.enqueue = enqueues(false)
M.enqueue_rows = enqueues(false, nil, nil, true)
M.enqueue_cached = enqueues { redis = true }

-- ---- classes of durability ----

local function set(orm, name, value) assert(streams.redis(orm, nil, "CONFIG", "SET", name, value)) end

local function synced(orm)
  set(orm, "appendfsync", "always")
  return function() set(orm, "appendfsync", "everysec") end
end

local function output_of(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

--- A second Redis that follows the first one, on this machine.
local function followed(orm)
  local port, had = 20000 + os.time() % 20000, 0
  set(orm, "port", port)
  local pid = output_of(string.format("redis-server --port %d --save '' --appendonly no --dir /tmp "
    .. "--repl-diskless-sync-delay 0 --replicaof 127.0.0.1 %d >/dev/null 2>&1 </dev/null & echo $!", port + 1, port))
  for _ = 1, 100 do
    had = assert(streams.redis(orm, nil, "WAIT", 1, 100))
    if had >= 1 then break end
  end
  assert(had >= 1, "no replica came")
  return function()
    os.execute("kill " .. pid)
    set(orm, "port", 0)
  end
end

M.enqueue_replica = enqueues(false, { durability = "replica" }, followed)
M.enqueue_fsync = enqueues(false, { durability = "fsync" }, synced)
M.enqueue_sync = enqueues(false, { durability = "sync" })

--- One flush of MANY changed rows: rows first..first+MANY-1.
local function enqueue_changed(orm, User, first, turn)
  local db, ids = orm:session(), {}
  for i = 1, model.MANY do ids[i] = first + i - 1 end
  for _, user in ipairs(assert(db:get_many(User, ids))) do
    user.visits = user.visits + 1
    user.city = model.city(user.id + turn)
  end
  assert(db:flush_async())
  db:close()
end

--- For the length of its entries.
function M.enqueue_changed()
  local User = model.entity("bench_changed", false)
  local orm = model.open { User }
  enqueue_changed(orm, User, 1, 1)
  clock.answer(model.MANY, 1)
  orm:close()
end

local function ops_for(seconds, rate) return math.ceil(seconds * rate / model.MANY) * model.MANY end

local function queue_new(orm, User, ops)
  for i = 1, ops, model.MANY do enqueue_new(orm, User, i) end
end

local function queue_changed(orm, User, ops)
  for i = 0, ops - 1, model.MANY do
    enqueue_changed(orm, User, i % model.ROWS + 1, math.floor(i / model.ROWS) + 1)
  end
end

--- Queues for as long as asked, then times a consumer until all of that is applied.
local function consumes(table_name, queue, rate)
  return function(seconds)
    local User = model.entity(table_name, false)
    local orm = model.open { User }
    local ops, applied = ops_for(seconds, rate), 0
    queue(orm, User, ops)
    local consumer = assert(orm:consumer())
    local started = clock.now()
    while applied < ops do applied = applied + assert(consumer:step(5)) end
    clock.answer(ops, clock.now() - started)
    assert(consumer:stats().dead == 0, "there are dead letters")
    consumer:close()
    orm:close()
  end
end

M.consume_insert = consumes("bench_new", queue_new, 60000)
M.consume_update = consumes("bench_changed", queue_changed, 60000)

local PARTITIONS = 4

--- One flush of MANY new rows of an aggregate.
local function enqueue_aggregate(orm, User, first, aggregate)
  local db = orm:session()
  for i = first, first + model.MANY - 1 do
    local row = model.row(i)
    row.visits = aggregate
    assert(db:new(User, row))
  end
  assert(db:flush_async())
  db:close()
end

--- Queues so many flushes, as many in each partition: with different shares the largest one's end would be
--- measured.
local function queue_evenly(orm, User, flushes)
  local of, found, queued = {}, 0, 0
  local function add(aggregate)
    enqueue_aggregate(orm, User, queued * model.MANY + 1, aggregate)
    queued = queued + 1
  end
  local lengths, aggregate = {}, 0
  while found < PARTITIONS do
    add(aggregate)
    for _, queue in ipairs(assert(orm:queues())) do
      local p = queue.partition
      if queue.length > (lengths[p] or 0) and not of[p] then of[p], found = aggregate, found + 1 end
      lengths[p] = queue.length
    end
    aggregate = aggregate + 1
  end
  local least = math.max(math.ceil(flushes / PARTITIONS), math.max(unpack(lengths, 0, PARTITIONS - 1)))
  for p = 0, PARTITIONS - 1 do
    for _ = lengths[p] + 1, least do add(of[p]) end
  end
  return queued * model.MANY
end

--- The same with four partitions, `parallel` of them at a time.
local function consumes_partitions(parallel)
  return function(seconds)
    local User = model.entity("bench_new", false, { by = "visits" })
    local orm = model.open({ User }, { queues = PARTITIONS })
    local ops, applied = queue_evenly(orm, User, ops_for(seconds, 60000) / model.MANY), 0
    local consumer = assert(orm:consumer { parallel = parallel })
    local started = clock.now()
    while applied < ops do applied = applied + assert(consumer:step(5)) end
    clock.answer(ops, clock.now() - started)
    assert(consumer:stats().dead == 0, "there are dead letters")
    consumer:close()
    orm:close()
  end
end

M.consume_parallel_4 = consumes_partitions(4)
M.consume_parallel_2 = consumes_partitions(2)
M.consume_parallel_1 = consumes_partitions(1)

--- Queues a number of operations for the side that watches a consumer's memory.
function M.queue_for_memory(ops)
  local User = model.entity("bench_new", { redis = true, process = true })
  local orm = model.open { User }
  queue_new(orm, User, ops)
  clock.answer(ops, 1)
  orm:close()
end

return M
