-- SPDX-License-Identifier: MIT
-- A server in front of a unix socket that hands bytes on. The file of its third argument may say
-- "NAME up|down K": of the bytes that go to the server (or come from it) from then on K are handed on, then
-- both ends are closed, once for each name; the file "<that file>.cut" gets the name.
--   cutter.lua LISTEN TARGET FILE

require "support.programs.follow"
local ffi = require "ffi"

ffi.cdef [[
typedef struct { unsigned short family; char path[108]; } cutter_unix;
typedef struct { int fd; short events, revents; } cutter_poll;
int socket(int domain, int type, int protocol);
int bind(int fd, const void *address, unsigned len);
int listen(int fd, int backlog);
int accept(int fd, void *address, unsigned *len);
int connect(int fd, const void *address, unsigned len);
int poll(cutter_poll *fds, unsigned long n, int timeout_ms);
long read(int fd, void *p, unsigned long n);
long write(int fd, const void *p, unsigned long n);
int close(int fd);
]]
local C = ffi.C
local listen_at, target, file = arg[1], arg[2], arg[3]
local IN = 1

local function address(path)
  local a = ffi.new "cutter_unix"
  a.family = 1
  ffi.copy(a.path, path)
  return a, ffi.sizeof "cutter_unix"
end

local server = C.socket(1, 1, 0)
assert(C.bind(server, address(listen_at)) == 0, "cannot bind")
assert(C.listen(server, 64) == 0)
print "ready"
io.stdout:flush()

local pairs_of = {} -- by descriptor: { other, up }
local buffer = ffi.new "char[65536]"
local order = {}    -- what to cut: { name, up, left }

local function read_order()
  local f = io.open(file)
  local text = f and f:read "*a" or ""
  if f then f:close() end
  local name, way, k = text:match "^(%S+) (%a+) (%d+)\n"
  if name and name ~= order.name then order = { name = name, up = way == "up", left = tonumber(k) } end
end

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
  pairs_of[client] = { other = upstream, up = true }
  pairs_of[upstream] = { other = client, up = false }
end

local function hand_on(fd, n)
  local at, other = 0, pairs_of[fd].other
  while at < n do
    local sent = tonumber(C.write(other, buffer + at, n - at))
    if sent <= 0 then return drop(fd) end
    at = at + sent
  end
end

local function serve(fd)
  local pair = pairs_of[fd]
  if not pair then return end
  local n = tonumber(C.read(fd, buffer, 65536))
  if n <= 0 then return drop(fd) end
  read_order()
  if not order.left or order.up ~= pair.up then return hand_on(fd, n) end
  if n <= order.left then
    order.left = order.left - n
    return hand_on(fd, n)
  end
  hand_on(fd, order.left)
  order.left = nil
  local f = assert(io.open(file .. ".new", "w"))
  f:write(order.name)
  f:close()
  os.rename(file .. ".new", file .. ".cut")
  drop(fd)
end

while true do
  local all = { server }
  for fd in pairs(pairs_of) do all[#all + 1] = fd end
  local fds = ffi.new("cutter_poll[?]", #all)
  for i, fd in ipairs(all) do fds[i - 1].fd, fds[i - 1].events = fd, IN end
  C.poll(fds, #all, -1)
  for i, fd in ipairs(all) do
    if fds[i - 1].revents ~= 0 then
      if fd == server then open() else serve(fd) end
    end
  end
end
