-- SPDX-License-Identifier: MIT
-- A server in front of a unix socket that hands bytes on. The file of its third argument may say
-- "NAME up|down K": of the bytes that go to the server (or come from it) from then on K are handed on, then
-- both ends are closed, once for each name; the file "<that file>.cut" gets the name.
--   cutter.lua LISTEN TARGET FILE

require "support.programs.follow"
local forwarder = require "support.forwarder"

local listen_at, target, file = arg[1], arg[2], arg[3]
local order = {} -- what to cut: { name, up, left }

local function read_order()
  local name, way, k = forwarder.text(file, "*a"):match "^(%S+) (%a+) (%d+)\n"
  if name and name ~= order.name then order = { name = name, up = way == "up", left = tonumber(k) } end
end

local function take(fd, pair, n)
  read_order()
  if not order.left or order.up ~= (pair.client == true) then return forwarder.hand_on(fd, n) end
  if n <= order.left then
    order.left = order.left - n
    return forwarder.hand_on(fd, n)
  end
  forwarder.hand_on(fd, order.left)
  order.left = nil
  local f = assert(io.open(file .. ".new", "w"))
  f:write(order.name)
  f:close()
  os.rename(file .. ".new", file .. ".cut")
  forwarder.drop(fd)
end

forwarder.run(listen_at, target, take)
