-- SPDX-License-Identifier: MIT
-- A server in front of a unix socket that hands bytes on, until a client sends COMMIT: then, by the word
-- in the file of its third argument, "before" closes both ends without handing it on, "after" hands it on,
-- waits until the answer is there, and closes both ends without handing that back; "hold" hands it on,
-- waits until the answer is there, says "held", and hands that back when the word is another one.
-- "hold execute" does so with executions of prepared statements; "reject NUMBER" answers with that error
-- without handing it on. "cut N before" and "cut N after" close both ends at the Nth thing that clients send
-- from then on, before it is handed on or after its answer has come. Anything else: it hands everything on.
--   proxy.lua LISTEN TARGET FILE
-- With "redis" as fourth argument the server is a Redis that is to look like 7.2: WAITAOF is answered here, that
-- so many disks have it as the file says.
--   proxy.lua LISTEN TARGET FILE redis

local ffi = require "ffi"

ffi.cdef [[
typedef struct { unsigned short family; char path[108]; } proxy_unix;
typedef struct { int fd; short events, revents; } proxy_poll;
int socket(int domain, int type, int protocol);
int bind(int fd, const void *address, unsigned len);
int listen(int fd, int backlog);
int accept(int fd, void *address, unsigned *len);
int connect(int fd, const void *address, unsigned len);
int poll(proxy_poll *fds, unsigned long n, int timeout_ms);
long read(int fd, void *p, unsigned long n);
long write(int fd, const void *p, unsigned long n);
int close(int fd);
]]
local C = ffi.C
local listen_at, target, file, kind = arg[1], arg[2], arg[3], arg[4]
local IN = 1

local function address(path)
  local a = ffi.new "proxy_unix"
  a.family = 1
  ffi.copy(a.path, path)
  return a, ffi.sizeof "proxy_unix"
end

local function word()
  local f = io.open(file)
  local text = f and f:read "*l" or ""
  if f then f:close() end
  return text
end

local server = C.socket(1, 1, 0)
assert(C.bind(server, address(listen_at)) == 0, "cannot bind")
assert(C.listen(server, 16) == 0)
print "ready"
io.stdout:flush()

local pairs_of = {} -- by descriptor: { other, client }
local buffer = ffi.new "char[65536]"

local function drop(fd)
  local pair = pairs_of[fd]
  if not pair then return end
  C.close(fd)
  C.close(pair.other)
  pairs_of[fd], pairs_of[pair.other] = nil, nil
end

local function open()
  local client = C.accept(server, nil, nil)
  local upstream = C.socket(1, 1, 0)
  if C.connect(upstream, address(target)) ~= 0 then
    C.close(client)
    C.close(upstream)
    return
  end
  pairs_of[client] = { other = upstream, client = true }
  pairs_of[upstream] = { other = client }
end

local function hand_on(fd, n)
  local at, other = 0, pairs_of[fd].other
  while at < n do
    local sent = tonumber(C.write(other, buffer + at, n - at))
    if sent <= 0 then return drop(fd) end
    at = at + sent
  end
end

local EXECUTE = 0x17
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
  if how == "hold execute" then return n > 4 and buffer[4] == EXECUTE end
  return ffi.string(buffer, n):find("COMMIT", 1, true) ~= nil
end

--- What is to be done instead of handing on what a client sent.
local function verdict(n)
  local how = word() or ""
  if how:match "^cut" then return cut(how) end
  return concerns(how, n) and how
end

--- Leaves the answer of the other end where it is.
local function hold(pair)
  local fds = ffi.new("proxy_poll[1]", { { fd = pair.other, events = IN } })
  C.poll(fds, 1, -1)
  pairs_of[pair.other].held = true
  print "held"
  io.stdout:flush()
end

--- An error, as a server words it.
local function reject(fd, number)
  local text = string.char(255, number % 256, math.floor(number / 256)) .. "#HY000refused by the proxy"
  local packet = string.char(#text, 0, 0, 1) .. text
  C.write(fd, ffi.cast("const char *", packet), #packet)
end

--- What is done instead of handing bytes on: true when something was.
local RULES = {}

function RULES.mysql(fd, pair, n)
  local how = pair.client and verdict(n)
  if not how then return false end
  local number = tonumber(how:match "^reject (%d+)$")
  if how == "before" then
    drop(fd)
  elseif number then
    reject(fd, number)
  elseif how == "after" then
    hand_on(fd, n)
    C.read(pair.other, buffer, 65536)
    drop(fd)
  elseif how:match "^hold" then
    hand_on(fd, n)
    hold(pair)
  else
    return false
  end
  return true
end

function RULES.redis(fd, pair, n)
  local text = ffi.string(buffer, n)
  if pair.client and text:find("$7\r\nWAITAOF\r\n", 1, true) then
    local answer = string.format("*2\r\n:%d\r\n:0\r\n", tonumber(word()) or 0)
    C.write(fd, ffi.cast("const char *", answer), #answer)
    return true
  end
  local at = not pair.client and text:find("redis_version:%d%.%d%.%d") -- of as many bytes
  if at then ffi.copy(buffer + at - 1, "redis_version:7.2.0", 19) end
  return false
end

local function serve(fd)
  local pair = pairs_of[fd]
  if not pair then return end
  local n = tonumber(C.read(fd, buffer, 65536))
  if n <= 0 then return drop(fd) end
  if not RULES[kind or "mysql"](fd, pair, n) then hand_on(fd, n) end
end

while true do
  local order = { server }
  local holding = (word() or ""):match "^hold"
  for fd, pair in pairs(pairs_of) do
    if not holding then pair.held = nil end
    if not pair.held then order[#order + 1] = fd end
  end
  local fds = ffi.new("proxy_poll[?]", #order)
  for i, fd in ipairs(order) do fds[i - 1].fd, fds[i - 1].events = fd, IN end
  C.poll(fds, #order, holding and 10 or -1)
  for i, fd in ipairs(order) do
    if fds[i - 1].revents ~= 0 then
      if fd == server then open() else serve(fd) end
    end
  end
end
