-- SPDX-License-Identifier: MIT
-- The MySQL client of scripts/bench/nginx' raw side: as much as a get by id needs, in the manner of lua-resty-mysql
-- (cosockets, a pool that keeps connections, COM_QUERY, rows as tables by column name).

local bit = require "bit"

local byte, char, sub = string.byte, string.char, string.sub
local band, bor, bxor, lshift, rshift = bit.band, bit.bor, bit.bxor, bit.lshift, bit.rshift

-- Long passwords and flags, connect with a database, protocol 4.1, transactions, authentication by plugin.
local CLIENT = 0x0008a20d
local COM_QUERY = char(3)
local UTF8MB4 = 45
local NULL = 251

local M = {}

local function u24(s, at)
  local a, b, c = byte(s, at, at + 2)
  return bor(a, lshift(b, 8), lshift(c, 16))
end

local function le(n, bytes)
  local out = {}
  for i = 1, bytes do out[i] = char(band(rshift(n, 8 * (i - 1)), 255)) end
  return table.concat(out)
end

local function packet(number, body) return le(#body, 3) .. char(number) .. body end

--- The body of the next packet.
local function receive(sock)
  local head, err = sock:receive(4)
  if not head then return nil, err end
  return sock:receive((u24(head, 1)))
end

--- A number of variable length: itself (nil: NULL), and what comes after.
local function number_at(s, at)
  local first = byte(s, at)
  if first < NULL then return first, at + 1 end
  if first == NULL then return nil, at + 1 end
  if first == 252 then return byte(s, at + 1) + byte(s, at + 2) * 256, at + 3 end
  assert(first == 253, "a value is too long")
  return u24(s, at + 1), at + 4
end

local function text_at(s, at)
  local n
  n, at = number_at(s, at)
  if not n then return nil, at end
  return sub(s, at, at + n - 1), at + n
end

local function answer_of(password, scramble)
  local once = ngx.sha1_bin(password)
  local mask, out = ngx.sha1_bin(scramble .. ngx.sha1_bin(once)), {}
  for i = 1, 20 do out[i] = char(bxor(byte(once, i), byte(mask, i))) end
  return table.concat(out)
end

local function failed(body) return "mysql: " .. sub(body, 10) end

local function greet(sock, opts)
  local hello, err = receive(sock)
  if not hello then return nil, err end
  if byte(hello) ~= 10 then return nil, failed(hello) end
  local at = hello:find("\0", 2, true) + 5 -- version, thread
  local scramble = sub(hello, at, at + 7) .. sub(hello, at + 27, at + 38)
  local sent
  sent, err = sock:send(packet(1, le(CLIENT, 4) .. le(2 ^ 24 - 1, 4) .. char(UTF8MB4) .. ("\0"):rep(23)
    .. opts.user .. "\0" .. char(20) .. answer_of(opts.password, scramble) .. opts.db .. "\0mysql_native_password\0"))
  if not sent then return nil, err end
  local body
  body, err = receive(sock)
  if not body then return nil, err end
  if byte(body) ~= 0 then return nil, failed(body) end
  return true
end

--- A connection of the pool, or a new one.
---@param opts table socket, user, password, db, size
function M.connect(opts)
  local sock = ngx.socket.tcp()
  sock:settimeouts(10000, 10000, 10000)
  local ok, err = sock:connect("unix:" .. opts.socket, { pool_size = opts.size })
  if not ok then return nil, err end
  if sock:getreusedtimes() == 0 then
    ok, err = greet(sock, opts)
    if not ok then return nil, err end
  end
  return sock
end

--- Rows of a SELECT, each a table of texts by column name.
function M.query(sock, sql)
  local ok, err = sock:send(packet(0, COM_QUERY .. sql))
  if not ok then return nil, err end
  local body
  body, err = receive(sock)
  if not body then return nil, err end
  if byte(body) == 255 then return nil, failed(body) end
  local n, names = byte(body), {}
  for i = 1, n do
    body = assert(receive(sock))
    local at, _ = 1, nil
    for _ = 1, 4 do -- catalogue, database, table, table's own name
      local length
      length, at = number_at(body, at)
      at = at + (length or 0)
    end
    names[i], _ = text_at(body, at)
  end
  assert(receive(sock)) -- the end of the columns
  local rows = {}
  while true do
    body, err = receive(sock)
    if not body then return nil, err end
    if byte(body) == 254 and #body < 9 then return rows end
    local row, at = {}, 1
    for i = 1, n do row[names[i]], at = text_at(body, at) end
    rows[#rows + 1] = row
  end
end

function M.keep(sock) return sock:setkeepalive(600000) end

return M
