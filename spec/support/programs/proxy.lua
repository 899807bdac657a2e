-- SPDX-License-Identifier: MIT
-- A server in front of a unix socket that hands bytes on, until a client sends COMMIT: then, by the word
-- in the file of its third argument, "before" closes both ends without handing it on, "after" hands it on,
-- waits until the answer is there, and closes both ends without handing that back; "hold" hands it on,
-- waits until the answer is there, says "held", and hands that back when the word is another one.
-- "hold execute" does so with executions of prepared statements; "reject NUMBER" answers with that error
-- without handing it on. "cut N before" and "cut N after" close both ends at the Nth thing that clients send
-- from then on, before it is handed on or after its answer has come. "together": what opens a transaction is
-- handed on, and no answer before the client has sent more; says "together", or "apart" when no more comes.
-- "refuse NUMBER" answers such an opening with that error, without handing it on. Anything else: it hands
-- everything on.
--   proxy.lua LISTEN TARGET FILE
-- With "redis" as fourth argument the server is a Redis that is to look like 7.2: WAITAOF is answered here, that
-- so many disks have it as the file says.
--   proxy.lua LISTEN TARGET FILE redis

local forwarder = require "support.forwarder"
local ffi = require "ffi"

local C = ffi.C
local listen_at, target, file, kind = arg[1], arg[2], arg[3], arg[4]

local function word() return forwarder.text(file, "*l") end

local QUERY, EXECUTE = 0x03, 0x17
local APART_MS = 3000
local cutting, sent = nil, 0

--- Is it time to cut? "before" or "after".
local function cut(how)
  if how ~= cutting then cutting, sent = how, 0 end
  local n, when = how:match "^cut (%d+) (%a+)$"
  sent = sent + 1
  return sent == tonumber(n) and when
end

--- Is a packet one that a word is about?
local function concerns(how, n)
  if how == "hold execute" then return n > 4 and forwarder.buffer[4] == EXECUTE end
  return ffi.string(forwarder.buffer, n):find("COMMIT", 1, true) ~= nil
end

--- What is to be done instead of handing on what a client sent.
local function verdict(n)
  local how = word() or ""
  if how:match "^cut" then return cut(how) end
  if how == "together" or how:match "^refuse" then return how end
  return concerns(how, n) and how
end

--- Leaves the answer of the other end where it is.
local function hold(pair)
  forwarder.poll({ pair.other }, -1)
  forwarder.pairs[pair.other].held = true
  print "held"
  io.stdout:flush()
end

--- An error, as a server words it.
local function reject(fd, number)
  local text = string.char(255, number % 256, math.floor(number / 256)) .. "#HY000refused by the proxy"
  local packet = string.char(#text, 0, 0, 1) .. text
  C.write(fd, ffi.cast("const char *", packet), #packet)
end

--- The packets in the buffer, in order: where each begins, its bytes, and its text if it opens a transaction.
local function packets(n)
  local list, at = {}, 0
  while at + 5 <= n do
    local p = forwarder.buffer + at
    local bytes = 4 + p[0] % 256 + p[1] % 256 * 256 + p[2] % 256 * 65536
    local text = p[4] == QUERY and at + bytes <= n and ffi.string(p + 5, bytes - 5) or ""
    local opens = text == "BEGIN" or text:find "^START TRANSACTION" or text:find "^SET TRANSACTION"
    list[#list + 1] = { at = at, bytes = math.min(bytes, n - at), opens = opens and text }
    at = at + bytes
  end
  return list
end

--- Does the client send more before an opening is answered?
local function await_more(fd, list)
  local begins = false
  for _, packet in ipairs(list) do begins = begins or packet.opens and not packet.opens:find "^SET" end
  local more = not list[#list].opens or forwarder.poll({ fd }, APART_MS)[0].revents ~= 0
  if not begins then return end
  print(more and "together" or "apart")
  io.stdout:flush()
end

--- Answers what opens a transaction with an error and hands the rest on.
local function refuse(fd, list, number)
  local rest = {}
  for i, packet in ipairs(list) do rest[i] = ffi.string(forwarder.buffer + packet.at, packet.bytes) end
  for i, packet in ipairs(list) do
    if packet.opens then
      reject(fd, number)
    else
      ffi.copy(forwarder.buffer, rest[i], #rest[i])
      forwarder.hand_on(fd, #rest[i])
    end
  end
end

--- True when it was dealt with.
local function take_opening(fd, n, how)
  local list = packets(n)
  local opens = false
  for _, packet in ipairs(list) do opens = opens or packet.opens end
  if not opens then return false end
  if how ~= "together" then
    refuse(fd, list, tonumber(how:match "^refuse (%d+)$"))
    return true
  end
  await_more(fd, list)
  return false
end

--- What is done instead of handing bytes on: true when something was.
local RULES = {}

function RULES.mysql(fd, pair, n)
  local how = pair.client and verdict(n)
  if not how then return false end
  if how == "together" or how:match "^refuse" then return take_opening(fd, n, how) end
  local number = tonumber(how:match "^reject (%d+)$")
  if how == "before" then
    forwarder.drop(fd)
  elseif number then
    reject(fd, number)
  elseif how == "after" then
    forwarder.hand_on(fd, n)
    C.read(pair.other, forwarder.buffer, 65536)
    forwarder.drop(fd)
  elseif how:match "^hold" then
    forwarder.hand_on(fd, n)
    hold(pair)
  else
    return false
  end
  return true
end

function RULES.redis(fd, pair, n)
  local text = ffi.string(forwarder.buffer, n)
  if pair.client and text:find("$7\r\nWAITAOF\r\n", 1, true) then
    local answer = string.format("*2\r\n:%d\r\n:0\r\n", tonumber(word()) or 0)
    C.write(fd, ffi.cast("const char *", answer), #answer)
    return true
  end
  local at = not pair.client and text:find("redis_version:%d%.%d%.%d") -- of as many bytes
  if at then ffi.copy(forwarder.buffer + at - 1, "redis_version:7.2.0", 19) end
  return false
end

local rule = RULES[kind or "mysql"]

local function take(fd, pair, n)
  if not rule(fd, pair, n) then forwarder.hand_on(fd, n) end
end

--- What is held is read on when the word is another one.
local function listened()
  local holding = (word() or ""):match "^hold"
  return function(pair)
    if not holding then pair.held = nil end
    return not pair.held
  end, holding and 10 or -1
end

forwarder.run(listen_at, target, take, listened)
