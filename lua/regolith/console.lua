-- SPDX-License-Identifier: MIT
-- The console: a web page for who runs an application. It is a function of a request, for any server:
--
--   local console = require("regolith.console").new(orm, { token = os.getenv "CONSOLE_TOKEN" })
--   local answer = console:handle { method = "GET", path = "/console/", headers = {}, remote = "::1" }
--   -- answer.status, answer.headers, answer.body
--
-- In nginx: regolith.nginx' console(). The page and its script hold no data and are anybody's; data is told
-- to who sends the token in a header, which no other site's page can make a browser do. So there is no
-- cookie, and nothing for a forged request to ride on.

local act = require "regolith.console.act"
local errors = require "regolith.err"
local guard = require "regolith.console.guard"
local history = require "regolith.console.history"
local native = require "regolith.native"
local options = require "regolith.options"
local page = require "regolith.console.page"
local plain = require "regolith.console.plain"
local read = require "regolith.console.read"

---@class regolith.Console
---@field _orm regolith.Orm
---@field _path string where it is mounted
local Console = { __name = "regolith.Console" }
Console.__index = Console

local M = {}

local BODY_MOST = 65536

-- ---- options ------------------------------------------------------------------------------------

local function path(v)
  if type(v) ~= "string" or not v:match "^/[%w/._~-]*[%w._~-]$" then
    return "must be a path such as \"/console\", without a slash at its end"
  end
end

local function names(v)
  if type(v) ~= "table" then return "must be a list of streams" end
  for _, name in ipairs(v) do
    if type(name) ~= "string" or not name:match "^[%w_.-]+$" then return "must be a list of streams' names" end
  end
end

local function dictionary(v)
  if type(v) == "string" and (not rawget(_G, "ngx") or not ngx.shared[v]) then
    return string.format("must be a dictionary of nginx: lua_shared_dict %s 2m;", v)
  end
  if type(v) ~= "string" and type(v) ~= "table" then return "must be the name of a lua_shared_dict" end
end

local OPTIONS = {
  token = guard.fault, token_file = options.string, path = path, title = options.string,
  interval_s = options.integer(1, 300), history = options.integer(10, 2000), dict = dictionary,
  read_only = options.boolean, values = options.boolean, streams = names, on_action = options.func,
  on_error = options.func,
}

local function first_line(file_path)
  local file, why = io.open(file_path, "r")
  if not file then error("console: the file of option 'token_file' cannot be read: " .. why, 4) end
  local line = file:read "*l" or ""
  file:close()
  return (line:gsub("%s+$", ""))
end

--- The token, from where it is given. There is no console without one.
local function find_token(given)
  local from, token = "option 'token'", given.token
  local file = given.token_file or os.getenv "REGOLITH_CONSOLE_TOKEN_FILE"
  if not token and file then from, token = "the token in '" .. file .. "'", first_line(file) end
  if not token then from, token = "REGOLITH_CONSOLE_TOKEN", os.getenv "REGOLITH_CONSOLE_TOKEN" end
  if not token then
    error("console: option 'token' is missing: it is not started without one. Give 'token' or 'token_file', or set "
      .. "REGOLITH_CONSOLE_TOKEN in the environment (nginx hands that down with `env REGOLITH_CONSOLE_TOKEN;`); "
      .. "`openssl rand -hex 16` makes one", 3)
  end
  local fault = guard.fault(token)
  if fault then error(string.format("console: %s %s", from, fault), 3) end
  return token
end

local function own_pid()
  if rawget(_G, "ngx") and ngx.worker and ngx.worker.pid then return ngx.worker.pid() end
  local file = io.open("/proc/self/stat", "r")
  local pid = file and file:read "*n"
  if file then file:close() end
  return pid or 0
end

--- A console of an orm. Raises when there is no token, or a weak one.
---@param orm regolith.Orm
---@param opts { token: string?, token_file: string?, path: string?, title: string?, interval_s: integer?,
---  history: integer?, dict: string?, read_only: boolean?, values: boolean?, streams: string[]?,
---  on_action: fun(action: table)?, on_error: fun(err: any)? }?
---@return regolith.Console
function M.new(orm, opts)
  if type(orm) ~= "table" or not rawget(orm, "_engine") then error("console: an orm is expected", 2) end
  opts = options.require("console", opts, OPTIONS)
  local dict = opts.dict
  if type(dict) == "string" then dict = ngx.shared[dict] end
  return setmetatable({
    _orm = orm, _path = opts.path or "/console", _title = opts.title or "Regolith", _dict = dict,
    _guard = guard.new(find_token(opts), dict), _interval_s = opts.interval_s or 5, _keep = opts.history or 360,
    _read_only = opts.read_only or false, _values = opts.values ~= false, _streams = opts.streams or {},
    _on_action = opts.on_action, _on_error = opts.on_error,
  }, Console)
end

--- Made on first use: a process that forked since is another one.
local function ready(self)
  if self._history then return end
  self._pid = own_pid()
  self._history = history.new(self._orm, {
    interval_s = self._interval_s, keep = self._keep, dict = self._dict, pid = self._pid,
  })
end

--- Are there workers whose figures are not seen here?
function Console:_is_partial()
  return not self._dict and rawget(_G, "ngx") ~= nil and ngx.worker.count() > 1
end

--- Were values asked for, and may they be?
function Console:_is_open(given)
  return self._values and (given.values == "1" or given.show_values == true)
end

--- Takes a point of the charts when it is time for one: for a timer, so that they know of times when nobody
--- looked.
function Console:sample()
  ready(self)
  self._history:sample()
end

--- Seconds between two points of the charts.
function Console:interval() return self._interval_s end

-- ---- answers ------------------------------------------------------------------------------------

local ALWAYS = {
  ["Cache-Control"] = "no-store", ["X-Content-Type-Options"] = "nosniff", ["Referrer-Policy"] = "no-referrer",
  ["X-Frame-Options"] = "DENY", ["Cross-Origin-Resource-Policy"] = "same-origin",
  ["Cross-Origin-Opener-Policy"] = "same-origin", ["Content-Security-Policy"] = "default-src 'none'; "
    .. "frame-ancestors 'none'",
}

local function answer(status, kind, body, more)
  local headers = { ["Content-Type"] = kind }
  for name, v in pairs(ALWAYS) do headers[name] = v end
  for name, v in pairs(more or {}) do headers[name] = v end
  return { status = status, headers = headers, body = body }
end

local function json(status, v, more) return answer(status, "application/json", plain.encode(v), more) end

local WORDS = {
  TOKEN = "the token (header X-Regolith-Token) is missing or wrong", WAIT = "too many wrong tokens: wait a minute",
  FOREIGN = "another site sent this (behind a proxy: it has to hand the Host header down)",
  JSON = "Content-Type: application/json is wanted",
  READ_ONLY = "this console only shows",
}

local function refuse(status, code, more)
  return json(status, { error = { code = code, message = WORDS[code] } }, more)
end

local STATUS = { INVALID = 400, MISUSE = 400, CONFLICT = 409, DUPLICATE_KEY = 409, LIMIT = 503, UNAVAILABLE = 503,
  TIMEOUT = 504, ACCESS = 502, CLOSED = 503 }

local function fail(self, fault, open)
  if not errors.is(fault) then
    if self._on_error then self._on_error(fault) end
    return json(500, { error = { code = "INTERNAL", message = "the console failed; see its log" } })
  end
  local message = open and fault.message or plain.redact(fault.message, fault.errno)
  return json(STATUS[fault.code] or 500,
    { error = { code = fault.code, message = message, field = fault.field, errno = fault.errno } })
end

-- ---- requests -----------------------------------------------------------------------------------

local function unescape(text)
  return (text:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

--- A query as a table: words of "a=1&b=2", or what the server has parsed.
local function query_of(given)
  if type(given) == "string" then
    local query = {}
    for name, v in given:gmatch "([^&=]+)=?([^&]*)" do query[unescape(name)] = unescape(v) end
    return query
  end
  local query = {}
  for name, v in pairs(given or {}) do query[name] = type(v) == "table" and v[1] or v end
  return query
end

--- Gives headers by name, however they are written.
local function headers_of(given)
  local headers = {}
  for name, v in pairs(given or {}) do
    headers[tostring(name):lower():gsub("_", "-")] = type(v) == "table" and v[1] or v
  end
  return function(name) return type(headers[name]) == "string" and headers[name] or nil end
end

local READS = {
  overview = read.overview, letters = read.letters, letter = read.letter, slow = read.slow, schema = read.schema,
  streams = read.streams, ["streams/letters"] = read.stream_letters, callbacks = read.callbacks,
}

--- Who is asked by the page: is the token right, and what may be done?
function READS.session(console)
  return {
    version = native.version, title = console._title, read_only = console._read_only, values = console._values,
    interval_s = console._interval_s, keep = console._keep, queues = plain.list { unpack(console._orm._pools) },
    redis = console._orm:has_redis(),
  }
end

local function run(self, open, fn, ...)
  local called, value, fault = pcall(fn, self, ...)
  if not called then return fail(self, value, open) end
  if value == nil then return fail(self, fault, open) end
  return json(200, value)
end

local function get(self, name, request)
  local query = query_of(request.query)
  local open = self:_is_open(query)
  return run(self, open, READS[name], query, open)
end

--- Tells the application who did what.
local function report(self, name, body, request, status)
  if not self._on_action then return end
  self._on_action {
    action = name, queue = body.queue, numbers = body.numbers or (body.number and { body.number }) or nil,
    stream = body.stream, group = body.group, letters = body.letters, remote = request.remote, ok = status == 200,
  }
end

local function post(self, name, request)
  if self._read_only then return refuse(403, "READ_ONLY") end
  local text = request.body or ""
  if #text > BODY_MOST then return refuse(413, "LARGE") end
  local body = native.json_decode(text)
  if type(body) ~= "table" or getmetatable(body) == native.array_mt then return refuse(400, "JSON") end
  for field, v in pairs(body) do
    if v == native.null then body[field] = nil end
  end
  local result = run(self, self:_is_open(body), act[name], body)
  report(self, name, body, request, result.status)
  return result
end

local function api(self, name, request, header)
  local ok, code, more = self._guard:admit(header, request.remote, request.method)
  if ok ~= true then return refuse(ok, code, more) end
  local wanted = READS[name] and "GET" or act[name] and "POST"
  if not wanted then return refuse(404, "NOT_FOUND") end
  local method = request.method == "HEAD" and "GET" or request.method
  if method ~= wanted then
    return refuse(405, "METHOD", { Allow = wanted == "GET" and "GET, HEAD" or wanted })
  end
  ready(self)
  return (wanted == "GET" and get or post)(self, name, request)
end

local function static(self, name, request, header)
  local file = page.file(name, self._title)
  if not file then return answer(404, "text/plain; charset=utf-8", "there is no such page\n") end
  if request.method ~= "GET" and request.method ~= "HEAD" then
    return answer(405, "text/plain; charset=utf-8", "GET is wanted\n", { Allow = "GET, HEAD" })
  end
  if file.etag and header "if-none-match" == file.etag then return answer(304, file.kind, "", file.headers) end
  return answer(200, file.kind, file.body, file.headers)
end

--- Is a path the console's?
---@param request_path string
---@return boolean
function Console:owns(request_path)
  return request_path == self._path or request_path:sub(1, #self._path + 1) == self._path .. "/"
end

--- Answers a request: method, path, query (text or table), headers (a table), body, remote (the address of
--- who asks, by which wrong tokens are counted).
---@param request { method: string, path: string, query: string|table|nil, headers: table?, body: string?,
---  remote: string? }
---@return { status: integer, headers: table<string, string>, body: string }
function Console:handle(request)
  if type(request) ~= "table" or type(request.method) ~= "string" or type(request.path) ~= "string" then
    error("handle takes a table with 'method' and 'path'", 2)
  end
  local header = headers_of(request.headers)
  local result
  if request.path == self._path then
    local last = self._path:match "[^/]+$"
    result = answer(308, "text/plain; charset=utf-8", "", { Location = last .. "/" })
  elseif not self:owns(request.path) then
    result = answer(404, "text/plain; charset=utf-8", "there is no such page\n")
  else
    local name = request.path:sub(#self._path + 2)
    local call = name:match "^api/(.*)$"
    if call then result = api(self, call, request, header) else result = static(self, name, request, header) end
  end
  if request.method == "HEAD" then result.body = "" end
  return result
end

return M
