-- SPDX-License-Identifier: MIT
-- Server addresses as URLs:
--   mysql://user:password@host:3306/database?tls=verify&pool=8
--   mysql+unix:///run/mysqld.sock?user=app&db=app
--   redis://:password@host:6379/0        rediss://host (TLS)        redis+unix:///run/redis.sock?db=1
-- No message ever repeats a URL: it may hold a password.

local options = require "regolith.options"
local suggest = require "regolith.suggest"

local M = {}

local SCHEMES = {
  mysql = { server = "mysql" },
  ["mysql+unix"] = { server = "mysql", unix = true },
  mariadb = { server = "mysql" },
  redis = { server = "redis" },
  rediss = { server = "redis", tls = "verify" },
  ["redis+unix"] = { server = "redis", unix = true },
}

local count = options.integer(1, 4294967295)
local TLS = options.one_of("off", "verify", "encrypt")

--- Options of a pool, as query keys of its URL or members of its table.
local COMMON = {
  tls = TLS, ca = options.string, cert = options.string, key = options.string,
  pool = count, connect_timeout_ms = count, timeout_ms = count, idle_timeout_ms = count,
  password_file = options.string, password_env = options.string,
  user = options.string, socket = options.string,
}
local SERVERS = {
  mysql = { db = options.string, max_statements = count, max_replica_lag_ms = count },
  redis = { db = options.integer(0, 1048575) },
}
for _, own in pairs(SERVERS) do
  for name, check in pairs(COMMON) do own[name] = check end
end

--- Options that are numbers in a URL's text.
local NUMBERS = {
  pool = true, connect_timeout_ms = true, timeout_ms = true, idle_timeout_ms = true,
  max_statements = true, max_replica_lag_ms = true,
}

M.SERVERS = SERVERS

local function decode(text)
  if text:find "%%" and text:gsub("%%%x%x", ""):find "%%" then return nil end
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local Parser = {}
Parser.__index = Parser

function Parser:fault(text, ...)
  if select("#", ...) > 0 then text = string.format(text, ...) end
  self.complain(text)
end

--- Percent-decodes one part; a fault names the part, not its text.
function Parser:text(what, raw)
  if raw == nil then return nil end
  local text = decode(raw)
  if not text then
    self:fault("its %s has a '%%' that is not followed by two hexadecimal digits", what)
  elseif text:find("\0", 1, true) then
    self:fault("its %s holds a NUL byte", what)
    return nil
  end
  return text
end

function Parser:user(raw)
  local user, password = raw:match "^([^:]*):(.*)$"
  user = self:text("user", user or raw)
  self.out.password = self:text("password", password)
  if user ~= "" then self.out.user = user end
end

local function host_and_port(raw)
  local host, port = raw:match "^%[([%x:.]+)%]:?(%d*)$"
  if not host then host, port = raw:match "^([^:%[%]]*):?(%d*)$" end
  return host, port
end

function Parser:host(raw)
  local host, port = host_and_port(raw)
  if not host or host == "" then return self:fault "has no host (or one that is not understood)" end
  self.out.host = self:text("host", host)
  if port ~= "" then
    local number = tonumber(port)
    if number < 1 or number > 65535 then return self:fault "its port must be from 1 to 65535" end
    self.out.port = number
  end
end

function Parser:query(raw, known)
  for pair in raw:gmatch "[^&]+" do
    local key, value = pair:match "^([^=]*)=(.*)$"
    key = self:text("query", key or pair)
    value = self:text(key or "query", value)
    if key and not known[key] and not key:find "^[%w_]+$" then
      self:fault "has an option that is not understood" -- it may be a piece of a password
    elseif key == "password" then
      self:fault "takes a password before its host, or by password_file or password_env, not as an option"
    elseif key and not known[key] then
      self:fault("unknown option '%s'%s", key, suggest.hint(key, known))
    elseif key and not value then
      self:fault("option '%s' has no value", key)
    elseif key then
      if NUMBERS[key] or (key == "db" and self.server == "redis") then value = tonumber(value) or value end
      local expected = known[key](value)
      if expected then self:fault("option '%s' %s", key, expected) end
      self.out[key] = value
    end
  end
end

function Parser:path(raw)
  local text = self:text("path", raw:sub(2))
  if text == nil or text == "" then return end
  if self.server == "redis" then
    local number = text:match "^%d+$" and tonumber(text)
    if not number then return self:fault "its path must be a database number" end
    self.out.db = number
  else
    if text:find "/" then return self:fault "its path must be one database name" end
    self.out.db = text
  end
end

--- What a URL says, as the members of a pool's table. Faults go to complain.
---@param server "mysql"|"redis"
---@param url string
---@param complain fun(text: string)
---@return table
function M.parse(server, url, complain)
  local self = setmetatable({ server = server, complain = complain, out = {} }, Parser)
  local scheme, rest = url:match "^([%a][%w+.-]*)://(.*)$"
  local known = scheme and SCHEMES[scheme:lower()]
  if not known or known.server ~= server then
    self:fault("must be a URL that starts with %s:// or %s+unix://", server, server)
    return self.out
  end
  self.out.tls = known.tls
  local before, query = rest:match "^([^?]*)%?(.*)$"
  before = before or rest
  local authority, path = before:match "^([^/]*)(.*)$"
  local user, host = authority:match "^(.*)@([^@]*)$"
  if user then self:user(user) end
  host = host or authority
  if not user and not known.unix and rest:find("@", 1, true) and not host_and_port(authority) then
    self:fault "has a '/' or '?' in its user or password: to be written as %2F and %3F"
    return self.out
  end
  if known.unix then
    if host ~= "" then self:fault "must have three slashes before the socket's path" end
    self.out.socket = self:text("path", path)
    if path == "" or path == "/" then self:fault "names no socket" end
  else
    self:host(host)
    self:path(path)
  end
  if query then self:query(query, SERVERS[server]) end
  return self.out
end

return M
