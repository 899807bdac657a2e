-- SPDX-License-Identifier: MIT
-- Who may ask the console: a token, tries that are counted, and requests that other sites cannot make.

local bit = require "bit"

local M = {}

local LEAST, MOST, VARIETY = 20, 512, 8
--- Wrong tokens of one address that are answered, and for how long they are remembered.
local TRIES, WINDOW_S = 5, 60
local ADDRESSES = 1000

--- What is wrong with a token, or nil.
---@param token any
---@return string?
function M.fault(token)
  if type(token) ~= "string" then return "must be a string" end
  if token:find "[^%w%p]" then return "must be printable ASCII without spaces" end
  if #token < LEAST or #token > MOST then
    return string.format("must have %d to %d characters, as `openssl rand -hex 16` makes them", LEAST, MOST)
  end
  local seen, n = {}, 0
  for c in token:gmatch "." do
    n = n + (seen[c] and 0 or 1)
    seen[c] = true
  end
  if n < VARIETY then return string.format("must have at least %d different characters", VARIETY) end
end

--- Takes as long for every token of one length.
---@param secret string
---@param given string
---@return boolean
function M.same(secret, given)
  local differ, n = bit.bxor(#secret, #given), #secret
  for i = 1, math.min(#given, MOST) do
    differ = bit.bor(differ, bit.bxor(given:byte(i), secret:byte((i - 1) % n + 1)))
  end
  return differ == 0
end

-- ---- counting wrong tokens ----------------------------------------------------------------------

--- Addresses of one host: of IPv6 the network, which one customer has.
local function place_of(remote)
  if type(remote) ~= "string" or remote == "" then return "*" end
  if not remote:find(":", 1, true) or remote:find("^unix:") then return remote:sub(1, 64) end
  local head, tail = remote:match "^(.-)::(.*)$"
  local groups = {}
  for group in (head or remote):gmatch "[^:]+" do groups[#groups + 1] = group end
  local _, behind = (tail or ""):gsub("[^:]+", "")
  while head and #groups + behind < 8 do groups[#groups + 1] = "0" end
  return table.concat(groups, ":", 1, math.min(4, #groups))
end

--- In a table of this process; bounded: when it is full, all who are new count as one.
local Memory = {}
Memory.__index = Memory

local function entry_of(self, place, now)
  local entry = self.entries[place]
  if entry and entry.ends > now then return entry end
  if entry then
    self.entries[place], self.n = nil, self.n - 1
  end
end

local function sweep(self, now)
  for place, entry in pairs(self.entries) do
    if entry.ends <= now then
      self.entries[place], self.n = nil, self.n - 1
    end
  end
end

function Memory:tries(place, now)
  local entry = entry_of(self, place, now) or (self.n >= ADDRESSES and entry_of(self, "*", now))
  return entry and entry.n or 0, entry and entry.ends - now or 0
end

function Memory:note(place, now)
  local entry = entry_of(self, place, now)
  if not entry and self.n >= ADDRESSES then
    sweep(self, now)
    if self.n >= ADDRESSES then
      place = "*"
      entry = entry_of(self, place, now)
    end
  end
  if not entry then
    entry = { n = 0, ends = now + WINDOW_S }
    self.entries[place], self.n = entry, self.n + 1
  end
  entry.n = entry.n + 1
end

--- In a dictionary that the workers of nginx share.
local Shared = {}
Shared.__index = Shared

function Shared:tries(place)
  local key = "rgc:try:" .. place
  local n = self.dict:get(key) or 0
  return n, n > 0 and math.max(self.dict:ttl(key) or WINDOW_S, 1) or 0
end

function Shared:note(place)
  self.dict:incr("rgc:try:" .. place, 1, 0, WINDOW_S)
end

-- ---- the guard ----------------------------------------------------------------------------------

---@class regolith.ConsoleGuard
local Guard = {}
Guard.__index = Guard

---@param token string
---@param dict table? a shared dictionary of nginx
function M.new(token, dict)
  local counter = dict and setmetatable({ dict = dict }, Shared) or setmetatable({ entries = {}, n = 0 }, Memory)
  return setmetatable({ token = token, counter = counter }, Guard)
end

--- Would a browser send this for another site? `header` gives a header of the request. What the browser says
--- itself goes first: a proxy may have changed the host.
local function is_foreign(header)
  local site = header "sec-fetch-site"
  if site then return site ~= "same-origin" and site ~= "none" end
  local origin, host = header "origin", header "host"
  return origin ~= nil and host ~= nil and origin:match "^%w+://(.+)$" ~= host
end

--- True, or a status, a code for the page and more headers.
---@param header fun(name: string): string?
---@param remote string?
---@param method string
---@return true|integer
---@return string? code
---@return table? headers
function Guard:admit(header, remote, method)
  if is_foreign(header) then return 403, "FOREIGN" end
  local given = header "x-regolith-token"
  if not given or given == "" then return 401, "TOKEN" end
  local place, now = place_of(remote), os.time()
  local n, left = self.counter:tries(place, now)
  if n >= TRIES then return 429, "WAIT", { ["Retry-After"] = string.format("%d", math.ceil(left)) } end
  if not M.same(self.token, given) then
    self.counter:note(place, now)
    return 401, "TOKEN"
  end
  local kind = header "content-type"
  if method == "POST" and not (kind and kind:match "^application/json%f[;%s%z]") then return 415, "JSON" end
  return true
end

return M
