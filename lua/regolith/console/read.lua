-- SPDX-License-Identifier: MIT
-- What the console tells. Nothing here changes anything; values are told only where they are asked for.

local errors = require "regolith.err"
local native = require "regolith.native"
local plain = require "regolith.console.plain"

local M = {}

local MEMBERS = {
  "number", "id", "entity", "entity_id", "operation", "errno", "sqlstate", "error", "tries", "at", "state",
}
local HEALTH_MS, LETTERS, LETTERS_MOST = 1500, 100, 500

-- ---- overview -----------------------------------------------------------------------------------

--- Is each server there? Asked at most once a slot, whoever looks.
local function health(console)
  local now = os.time()
  if console._health and now - console._health_at < console._interval_s then return console._health end
  console._health_at = now
  local pools, fault = console._orm:health(HEALTH_MS)
  console._health = { pools = pools or {}, error = fault and tostring(fault) }
  return console._health
end

local function add_health(pools, answer)
  for _, pool in ipairs(pools) do
    for _, told in ipairs(answer.pools) do
      if told.kind == pool.kind and told.name == pool.name then
        pool.ok, pool.error = told.ok, told.error
      end
    end
  end
  return plain.list(pools)
end

local COUNTS = {
  process_hits = "process_cache_hits", process_misses = "process_cache_misses",
  evictions = "process_cache_evictions", invalidations = "process_cache_invalidations",
  clears = "process_cache_clears", redis_hits = "redis_cache_hits", redis_misses = "redis_cache_misses",
  redis_bypasses = "redis_cache_bypasses", corrupt = "cache_corrupt", refused = "cache_fill_refused",
  values_process_hits = "values_process_hits", values_redis_hits = "values_redis_hits",
  values_misses = "values_misses", values_stale = "values_stale", values_bypasses = "values_bypasses",
  flushes = "flushes", flushes_failed = "flushes_failed", flushed = "flushed_operations",
  queued = "enqueued_operations", applied = "applied_operations", dead = "dead_letters",
  backpressure = "backpressure", gaps = "queue_gaps", leaked = "leaked_handles",
  mysql = "mysql_queries", mysql_errors = "mysql_errors", redis = "redis_commands", redis_errors = "redis_errors",
}

local function counts_of(values)
  local counts = { bytes = values.regolith_process_cache_bytes, entries = values.regolith_process_cache_entries,
    threads = values.regolith_worker_threads, waiting = values.regolith_operations_queued }
  for name, counter in pairs(COUNTS) do counts[name] = values["regolith_" .. counter .. "_total"] or 0 end
  return counts
end

function M.overview(console, query)
  local history = console._history
  history:sample()
  local sum, processes = history:now()
  local points, queue_points = history:since(tonumber(query.since) or 0)
  local queues, well = history:queues(), health(console)
  return {
    now = os.time(), interval_s = console._interval_s, keep = console._keep, process = console._pid,
    processes = processes, partial = console:_is_partial(), pools = add_health(sum.pools, well),
    health_error = well.error, coherent = sum.coherent, counts = counts_of(sum.values),
    queues = { list = plain.list(queues.list), error = queues.error, at = queues.at },
    warnings = plain.list(queues.warnings),
    points = plain.list(points), queue_points = plain.list(queue_points),
  }
end

-- ---- dead letters -------------------------------------------------------------------------------

--- The queue that a request names, or nil and the answer to it.
function M.queue(console, name)
  name = name or "default"
  for _, pool in ipairs(console._orm._pools) do
    if pool == name then return name end
  end
  return nil, errors.new("INVALID", "there is no queue of that name", { field = "queue" })
end

local function shown(letter, open)
  letter.error = open and letter.error or plain.redact(letter.error, letter.errno)
  return letter
end

function M.letters(console, query, open)
  local queue, fault = M.queue(console, query.queue)
  if not queue then return nil, fault end
  local limit = math.min(math.max(math.floor(tonumber(query.limit) or LETTERS), 1), LETTERS_MOST)
  local letters
  letters, fault = console._orm:dead_letters(queue, limit)
  if not letters then return nil, fault end
  for _, letter in ipairs(letters) do shown(letter, open) end
  return { queue = queue, letters = plain.list(letters), limit = limit }
end

--- A column's line of the page: what the letter says, and what the row was that it met.
local function line_of(name, column, letter, open)
  local line = {
    column = name, path = column and column.path or name, kind = column and column.kind.name,
    nullable = column and column.args.nullable == true, given = letter.given[name] == true,
    sensitive = column and column.args.sensitive, id = name == letter.id_column or nil,
  }
  if open then
    if line.given then line.value = letter.values[name] == nil and native.null or letter.values[name] end
    if letter.current then line.current = letter.current[name] == nil and native.null or letter.current[name] end
  end
  return line
end

--- Its columns in the entity's order, then those that are not known here.
local function lines_of(letter, open)
  local lines, seen = {}, {}
  if letter.id_column and letter.given[letter.id_column] then
    lines[1], seen[letter.id_column] = line_of(letter.id_column, nil, letter, open), true
  end
  for _, column in ipairs(letter.type and letter.type.columns or {}) do
    lines[#lines + 1] = line_of(column.column, column, letter, open)
    seen[column.column] = true
  end
  local rest = {}
  for name in pairs(letter.given) do
    if not seen[name] then rest[#rest + 1] = name end
  end
  table.sort(rest)
  for _, name in ipairs(rest) do lines[#lines + 1] = line_of(name, nil, letter, open) end
  return plain.list(lines)
end

function M.letter(console, query, open)
  local queue, fault = M.queue(console, query.queue)
  if not queue then return nil, fault end
  local number = tonumber(query.number)
  if not number or number < 1 or number % 1 ~= 0 then
    return nil, errors.new("INVALID", "a number of a dead letter is wanted", { field = "number" })
  end
  local letter
  letter, fault = console._orm:dead_letter(number, queue)
  fault = fault or errors.new("INVALID", "there is no such dead letter", { field = "number" })
  if not letter then return nil, fault end
  letter.type = console._orm._by_name[letter.entity]
  letter.id_column = letter.type and (letter.type.id_column or "id")
  letter.given = {}
  for _, name in ipairs(letter.columns) do letter.given[name] = true end
  local answer = { queue = queue, values_shown = open, met_another_row = letter.current ~= nil }
  answer.fields, answer.known = lines_of(letter, open), letter.type ~= nil
  for _, name in ipairs(MEMBERS) do
    answer[name] = letter[name]
  end
  return shown(answer, open)
end

-- ---- slow, schema -------------------------------------------------------------------------------

function M.slow(console)
  return { slow = plain.list(console._history:slow()), partial = console:_is_partial(), process = console._pid }
end

function M.schema(console)
  local changes, fault = console._orm:schema_diff()
  if not changes then return nil, fault end
  return { changes = plain.list(changes) }
end

-- ---- events -------------------------------------------------------------------------------------

--- Streams that this orm knows of, and the queue in whose Redis each is: those that it subscribes to, of its
--- entities, of dead letters, and those that the console was told of.
local function known_streams(console)
  local orm, queues, names = console._orm, {}, {}
  local function add(name, queue)
    if not queues[name] then names[#names + 1] = name end
    queues[name] = queues[name] or queue or "default"
  end
  for _, entity in pairs(orm._by_name) do
    for _, feed in ipairs(entity.feeds or {}) do add(feed.stream, entity.mysql) end
  end
  for _, queue in ipairs(orm._pools) do add(orm:dead_letter_stream(queue), queue) end
  for name in pairs(orm._subscribers) do add(name) end
  for _, name in ipairs(console._streams) do add(name) end
  table.sort(names)
  return names, queues
end

function M.streams(console)
  local list = plain.list {}
  if not console._orm:has_redis() then return { streams = list } end
  local names, queues = known_streams(console)
  for i, name in ipairs(names) do
    local stats, fault = console._orm:stream_stats(name, { queue = queues[name] })
    if not stats then return nil, fault end
    stats.name, stats.groups = name, plain.list(stats.groups)
    list[i] = stats
  end
  return { streams = list }
end

--- A known stream and a group of it, as words.
function M.group(console, given)
  local _, queues = known_streams(console)
  local group = type(given.group) == "string" and given.group:match "^[%w_.-]+$"
  if type(given.stream) == "string" and queues[given.stream] and group and #group <= 128 then
    return given.stream, group, queues[given.stream]
  end
  return nil, errors.new("INVALID", "a known stream and a group of it are wanted", { field = "stream" })
end

--- Text of handlers may hold anything.
local function hide_error(row, open)
  row.error = row.error and (open and row.error or nil)
  row.error_hidden = not open or nil
end

function M.stream_letters(console, query, open)
  local stream, group, queue = M.group(console, query)
  if not stream then return nil, group end
  local letters, fault = console._orm:event_letters(stream, group, { queue = queue, limit = LETTERS })
  if not letters then return nil, fault end
  for _, letter in ipairs(letters) do
    hide_error(letter, open)
    letter.body = open and letter.body ~= nil and native.json_encode(letter.body) or nil
  end
  return { stream = stream, group = group, letters = plain.list(letters) }
end

-- ---- callbacks ----------------------------------------------------------------------------------

function M.callbacks(console, query, open)
  local pool, fault = M.queue(console, query.queue)
  if not pool then return nil, fault end
  local state = (query.state == "dead" or query.state == "waiting") and query.state or nil
  local stats, rows
  stats, fault = console._orm:callback_stats { pool = pool }
  if not stats then return nil, fault end
  rows, fault = console._orm:callbacks { pool = pool, state = state, limit = LETTERS }
  if not rows then return nil, fault end
  for _, row in ipairs(rows) do
    hide_error(row, open)
    row.payload, row.key = open and row.payload or nil, open and row.key or nil
  end
  return { queue = pool, stats = stats, callbacks = plain.list(rows) }
end

return M
