-- SPDX-License-Identifier: MIT
-- A server in front of a unix socket that hands bytes on; what it does instead is its program's to say.

local ffi = require "ffi"

ffi.cdef [[
typedef struct { unsigned short family; char path[108]; } forwarder_unix;
typedef struct { int fd; short events, revents; } forwarder_poll;
int socket(int domain, int type, int protocol);
int bind(int fd, const void *address, unsigned len);
int listen(int fd, int backlog);
int accept(int fd, void *address, unsigned *len);
int connect(int fd, const void *address, unsigned len);
int poll(forwarder_poll *fds, unsigned long n, int timeout_ms);
long read(int fd, void *p, unsigned long n);
long write(int fd, const void *p, unsigned long n);
int close(int fd);
]]
local C = ffi.C
local IN = 1

local M = {
  pairs = {}, -- by descriptor: { other, client = true for the client's end }
  buffer = ffi.new "char[65536]",
}

local function address(path)
  local a = ffi.new "forwarder_unix"
  a.family = 1
  ffi.copy(a.path, path)
  return a, ffi.sizeof "forwarder_unix"
end

--- Closes both ends.
function M.drop(fd)
  local pair = M.pairs[fd]
  if not pair then return end
  C.close(fd)
  C.close(pair.other)
  M.pairs[fd], M.pairs[pair.other] = nil, nil
end

--- Hands the first n bytes of the buffer on.
function M.hand_on(fd, n)
  local at, other = 0, M.pairs[fd].other
  while at < n do
    local sent = tonumber(C.write(other, M.buffer + at, n - at))
    if sent <= 0 then return M.drop(fd) end
    at = at + sent
  end
end

--- Waits until something can be read from one of these; their answers in revents.
function M.poll(fds, timeout_ms)
  local polled = ffi.new("forwarder_poll[?]", #fds)
  for i, fd in ipairs(fds) do polled[i - 1].fd, polled[i - 1].events = fd, IN end
  C.poll(polled, #fds, timeout_ms)
  return polled
end

local function open(server, target)
  local client = C.accept(server, nil, nil)
  local upstream = C.socket(1, 1, 0)
  if C.connect(upstream, address(target)) ~= 0 then
    C.close(client)
    C.close(upstream)
    return
  end
  M.pairs[client] = { other = upstream, client = true }
  M.pairs[upstream] = { other = client }
end

local function serve(fd, take)
  local pair = M.pairs[fd]
  if not pair then return end
  local n = tonumber(C.read(fd, M.buffer, 65536))
  if n <= 0 then return M.drop(fd) end
  take(fd, pair, n)
end

--- The text of a file, or "".
function M.text(path, what)
  local f = io.open(path)
  local text = f and f:read(what) or ""
  if f then f:close() end
  return text
end

--- Serves without end.
---@param listen_at string
---@param target string
---@param take fun(fd: integer, pair: table, n: integer) what is done with n bytes read into the buffer
---@param listened? fun(): (fun(pair: table): boolean), integer which ends are read from now, and for how long, ms
function M.run(listen_at, target, take, listened)
  local server = C.socket(1, 1, 0)
  assert(C.bind(server, address(listen_at)) == 0, "cannot bind")
  assert(C.listen(server, 64) == 0)
  print "ready"
  io.stdout:flush()
  while true do
    local fds, wanted, timeout_ms = { server }, nil, -1
    if listened then wanted, timeout_ms = listened() end
    for fd, pair in pairs(M.pairs) do
      if not wanted or wanted(pair) then fds[#fds + 1] = fd end
    end
    local polled = M.poll(fds, timeout_ms)
    for i, fd in ipairs(fds) do
      if polled[i - 1].revents ~= 0 then
        if fd == server then open(server, target) else serve(fd, take) end
      end
    end
  end
end

return M
