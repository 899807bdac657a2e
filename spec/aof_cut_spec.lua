-- SPDX-License-Identifier: MIT
-- Redis' append-only file cut short: between the bytes of an enqueue there is no state but before and after
-- it; and what a file that was cut anywhere has lost is applied no more and told of, all else once and in
-- order. REGOLITH_LONG=1: each byte, and some hundred cuts of a queue at work.

local faults = require "support.faults"
local shared = require "support.programs.shared"
local support = require "support.init"

local must = support.must
local Club, Member, Counter = shared.Club, shared.Member, shared.Counter
local LONG = os.getenv "REGOLITH_LONG" ~= nil
local STRIDE, ROUNDS = LONG and 1 or 241, LONG and 300 or 4

local function read_bytes(path)
  local file = must(io.open(path, "rb"))
  local bytes = file:read "*a"
  file:close()
  return bytes
end

--- The folder of a Redis' append-only file, and what commands go into.
local function aof_of(socket)
  local redis = faults.redis(socket)
  local dir = redis:call("CONFIG", "GET", "dir")[2] .. "/" .. redis:call("CONFIG", "GET", "appenddirname")[2]
  redis:close()
  local newest = support.shell("ls -t '" .. dir .. "'/*.incr.aof | head -1"):match "[^\n]+"
  return dir, must(newest, "there is no append-only file")
end

local function size_of(path) return #read_bytes(path) end

describe("an append-only file that is cut", function()
  local servers, orm, db
  setup(function()
    servers = faults.servers "aof"
    orm = servers:open { Club, Member, Counter }
  end)
  teardown(function() servers:remove() end)
  before_each(function() db = orm:session() end)
  after_each(function() db:close() end)

  --- What a Redis makes of a folder whose newest file holds these bytes: a digest of all that it has.
  local function digest_of(scratch, dir, name, bytes)
    support.shell(string.format("rm -rf '%s' && mkdir -p '%s/a' && cp -r '%s' '%s/a/'", scratch, scratch, dir, scratch))
    faults.write_file(string.format("%s/a/%s/%s", scratch, dir:match "[^/]+$", name), bytes)
    os.execute(string.format("setsid redis-server --port 0 --unixsocket '%s/s' --dir '%s/a' --appendonly yes "
      .. "--appendfsync no --save '' --appenddirname '%s' --enable-debug-command yes --daemonize no "
      .. "--logfile '%s/log' >/dev/null 2>&1 </dev/null &", scratch, scratch, dir:match "[^/]+$", scratch))
    local redis, digest
    faults.await("a Redis on a cut file", function()
      local there, answer = pcall(faults.redis, scratch .. "/s")
      if not there then return false end
      redis = answer
      digest = redis:call "PING" == "PONG" and redis:call("DEBUG", "DIGEST") -- it answers while it reads the file
      if not digest then redis:close() end
      return digest
    end)
    pcall(redis.call, redis, "SHUTDOWN", "NOSAVE")
    redis:close()
    return digest
  end

  it("holds each enqueue whole or not at all", function()
    local one = must(db:new(Member, { id = 1, club = 1, n = 1 }))
    local two = must(db:new(Member, { id = 2, club = 1, n = 1 }))
    must(db:flush())
    must(orm:session():get_many(Member, { 1, 2 }))
    db:new(Counter, { tag = "first", n = 1 })
    must(db:flush_async())
    local dir, path = aof_of(servers.redis_socket)
    local bounds = { size_of(path) }
    db:new(Counter, { tag = "second", n = 2 })
    one.n = 2
    must(db:flush_async())
    bounds[2] = size_of(path)
    one.n = 3
    must(db:flush_async())
    bounds[3] = size_of(path)
    db:delete(two)
    must(db:flush_async())
    bounds[4] = size_of(path)
    local bytes, scratch, name = read_bytes(path), os.tmpname() .. ".d", path:match "[^/]+$"
    local states, known = {}, {}
    for i, at in ipairs(bounds) do
      states[i] = digest_of(scratch, dir, name, bytes:sub(1, at))
      known[states[i]] = i
    end
    assert.equal(4, #states)
    for i = 2, 4 do assert.not_equal(states[i - 1], states[i]) end
    local cuts, at = 0, bounds[1]
    while at <= bounds[4] do
      local i = known[digest_of(scratch, dir, name, bytes:sub(1, at))]
      local whole = at >= bounds[4] and 4 or at >= bounds[3] and 3 or at >= bounds[2] and 2 or 1
      if i ~= whole then
        error(string.format("cut at byte %d of %d: state %s where %d flushes are whole", at - bounds[1],
          bounds[4] - bounds[1], tostring(i), whole - 1))
      end
      cuts, at = cuts + 1, at + STRIDE
    end
    if LONG then io.write(string.format("\n# cut at %d bytes of 3 flushes: no state but the whole ones\n", cuts)) end
    support.shell("rm -rf '" .. scratch .. "'")
    support.drain(orm)
  end)

  it("loses what it has lost, says so, and nothing else", function()
    local members, next_id = {}, 100
    local lost_rounds, lost_ops, kept_ops = 0, 0, 0
    math.randomseed(tonumber(os.getenv "REGOLITH_SEED") or 7)

    local function queue_some(n)
      for _ = 1, n do
        local id = math.random(100, next_id)
        local member = members[id]
        if not member then
          id, next_id = next_id, next_id + 1
          member = db:new(Member, { id = id, club = 1, n = 0 })
          members[id] = member
        end
        member.n = member.n + 1
        must(db:flush_async())
      end
    end

    local function rows()
      local list = {}
      for _, row in ipairs(must(db:query "SELECT id, n, version FROM member WHERE id >= 100")) do list[row.id] = row end
      return list
    end

    local applied_before
    for _ = 1, ROUNDS do
      applied_before = must(orm:queues())[1].applied
      local rows_before = rows()
      local _, path = aof_of(servers.redis_socket)
      local from = size_of(path)
      queue_some(math.random(5, 25))
      local consumer = must(orm:consumer { max_batch = math.random(1, 8) })
      for _ = 1, math.random(0, 2) do must(consumer:step(0)) end
      queue_some(math.random(0, 6))
      local counted = orm:counter "regolith_queue_lost_total"
      servers:kill "redis"
      local bytes = read_bytes(path)
      faults.write_file(path, bytes:sub(1, math.random(from, #bytes)))
      servers:start()
      faults.await("the queue to be empty", function()
        consumer:step(0.01)
        local queues = orm:queues()
        return queues and queues[1].length == 0 and orm:drained(100)
      end)
      consumer:close()
      -- what there is now is what was applied: each once, in order
      local now, sum, sum_before, lost = rows(), 0, 0, 0
      for _, row in pairs(rows_before) do sum_before = sum_before + row.n end
      for id, member in pairs(members) do
        local n = now[id] and now[id].n or 0
        if now[id] then assert.equal(n + (now[id].version - n), now[id].version) end
        assert.is_true(n <= member.n and n >= (rows_before[id] and rows_before[id].n or 0))
        lost, sum = lost + member.n - n, sum + n
      end
      assert.equal(sum - sum_before, must(orm:queues())[1].applied - applied_before)
      assert.same({}, must(orm:dead_letters()))
      -- the caches show it
      local reader = orm:session()
      for id in pairs(members) do
        local e = reader:get(Member, id)
        assert.equal(now[id] and now[id].n or nil, e and e.n or nil)
      end
      reader:close()
      -- and the first flush of who was told that it was queued finds out
      local other = orm:session()
      other:new(Counter, { tag = "after " .. sum .. " " .. next_id .. " " .. math.random(1e9), n = 1 })
      must(other:flush_async())
      other:close()
      assert.equal(lost > 0 and 1 or 0, orm:counter "regolith_queue_lost_total" - counted)
      support.drain(orm)
      lost_rounds, lost_ops = lost_rounds + (lost > 0 and 1 or 0), lost_ops + lost
      kept_ops = kept_ops + sum - sum_before
      db:close()
      db = orm:session()
      members = {}
      for id in pairs(now) do members[id] = db:get(Member, id) end
    end
    if lost_rounds > 0 then
      local told = false
      for _, warning in ipairs(must(orm:queue_warnings())) do
        told = told or (warning.fault == "lost" and warning.text:find("which it had acknowledged", 1, true) ~= nil)
      end
      assert.is_true(told)
    end
    if LONG then
      io.write(string.format("\n# %d cuts: %d operations applied once, %d gone with %d cuts, all of these told\n",
        ROUNDS, kept_ops, lost_ops, lost_rounds))
    end
  end)
end)
