-- SPDX-License-Identifier: MIT
-- A link of nginx: one cosocket to Redis over which the worker itself asks for rows by id, all that come in a turn
-- of its event loop in one question. A light thread writes when requests have something to ask, another one reads.
-- Without a link, and whenever it does not answer, reads go by the engine's workers.

local native = require "regolith.native"

local C, ffi, err = native.C, native.ffi, native.err
local CONNECT_MS, FOREVER_MS, FOREVER_S = 1000, 2147483647, 2000000
local CHUNK = 65536
--- After a connection that came to nothing; doubles.
local RETRY_S, MAX_RETRY_S = 0.1, 10
--- One that does not answer for so long is given up.
local DEAD_MS = 5000

local len, port = ffi.new "size_t[1]", ffi.new "uint32_t[1]"

---@class regolith.NginxLink
---@field c ffi.cdata* rg_link
---@field drain function wakes those whose operations are done
---@field sock table? the cosocket, while there is one
---@field starting boolean a light thread has it, or soon will
---@field asks boolean the writer was called, or a question is under way
---@field over boolean the reader has ended
---@field given_up boolean the connection is to be closed
---@field closing boolean for good
---@field retry_at number? no connection before
---@field retry_s number
local Link = {}
Link.__index = Link

local M = {}

--- nil where the pool needs more than a cosocket offers.
---@param engine ffi.cdata*
---@param notifier ffi.cdata*
---@param pool integer
---@param drain fun()
---@return regolith.NginxLink?
function M.new(engine, notifier, pool, drain)
  local c = C.rg_link_new(engine, notifier, pool, err)
  if c == nil then return nil end
  return setmetatable({
    c = ffi.gc(c, C.rg_link_free), drain = drain, sema = require("ngx.semaphore").new(0), starting = false,
    asks = false, closing = false, retry_s = RETRY_S, name = "regolith " .. tostring(c),
  }, Link)
end

--- Sends what is to be asked; false when the connection is lost.
local function flush(self)
  if self.writing then return true end -- and looks again when it was sent
  self.writing = true
  local ok, p = true, C.rg_link_out(self.c, len)
  while ok and p ~= nil do
    self.asks = true
    ok = self.sock:send(ffi.string(p, len[0]))
    p = C.rg_link_out(self.c, len)
  end
  self.asks = len[0] > 0
  self.writing = false
  return ok
end

local function read(self)
  local sock, c = self.sock, self.c
  while true do
    local bytes = sock:receiveany(CHUNK)
    local said = bytes and C.rg_link_in(c, bytes, #bytes) or -1
    self.drain()
    if said < 0 or (said == 1 and not flush(self)) then break end
    if said == 1 then self.retry_s = RETRY_S end
  end
  self.over = true
  self.sema:post(1)
end

--- The writer: until the connection is lost, or is to be given up.
local function serve(self)
  local reader = ngx.thread.spawn(read, self)
  while not (self.over or self.given_up or self.closing) and flush(self) do self.sema:wait(FOREVER_S) end
  if not self.over then ngx.thread.kill(reader) end
end

local function connect(self)
  local place = ffi.string(C.rg_link_place(self.c, port))
  local sock = ngx.socket.tcp()
  sock:settimeouts(CONNECT_MS, FOREVER_MS, FOREVER_MS)
  local opts = { pool = self.name } -- never one that somebody else has put back
  if port[0] == 0 then return sock:connect("unix:" .. place, opts) and sock end
  return sock:connect(place, port[0], opts) and sock
end

local function carry(premature, self)
  local sock = not premature and not self.closing and connect(self)
  if sock then
    self.sock, self.over, self.given_up, self.asks, self.writing = sock, false, false, true, false
    if C.rg_link_begin(self.c, err) == 0 then serve(self) end
    self.sock = nil
    sock:close()
  end
  C.rg_link_lost(self.c)
  self.drain()
  self.retry_at, self.starting = ngx.now() + self.retry_s, false
  self.retry_s = math.min(self.retry_s * 2, MAX_RETRY_S)
end

local function start(self)
  if self.closing or ngx.worker.exiting() or (self.retry_at and ngx.now() < self.retry_at) then return end
  if C.rg_link_worthwhile(self.c) == 0 then return end
  self.starting = ngx.timer.at(0, carry, self) and true or false
end

--- As rg_link_submit; a connection is made when there is none.
---@return integer patience_ms
function Link:submit(op, tag, timeout_ms)
  local patience = C.rg_link_submit(self.c, op, tag, timeout_ms, err)
  if patience > 0 then
    if not self.asks then
      self.asks = true
      self.sema:post(1)
    end
  elseif not self.starting then start(self)
  elseif not self.given_up and C.rg_link_late(self.c) > DEAD_MS then self:drop() end
  return patience
end

--- Ends the connection; another one may follow.
function Link:drop()
  self.given_up = true
  self.sema:post(1)
end

--- For good.
function Link:close()
  self.closing = true
  self.sema:post(1)
end

return M
