-- SPDX-License-Identifier: MIT
-- The host of OpenResty and nginx-lua: an operation goes to the engine's workers, the coroutine waits
-- on a semaphore, and the event loop keeps turning. One light thread per worker process (the pump)
-- reads the engine's wake-up bytes from a cosocket and posts the semaphores of what is done.

local errors = require "regolith.err"
local links = require "regolith.hosts.nginx_link"
local native = require "regolith.native"

local C, ffi, err = native.C, native.ffi, native.err
local DONE = tonumber(C.RG_OP_DONE)
local FOREVER_MS = 2147483647
--- ngx_lua fires pending timers at once, as premature, when the worker begins to exit.
local WATCH_S = 2000000
local TAGS = 64

local YIELDABLE = {
  rewrite = true, server_rewrite = true, access = true, content = true, timer = true,
  ssl_cert = true, ssl_session_fetch = true, ssl_client_hello = true, preread = true,
}

---@class regolith.NginxHost : regolith.Host
---@field engine ffi.cdata* borrowed
---@field notifier ffi.cdata*? made on first use in a worker
---@field waiting table<integer, table> weak: an abandoned coroutine's entry goes with it
local Nginx = { blocking = false }
Nginx.__index = Nginx

local tags = ffi.new("uint32_t[?]", TAGS)

--- Posts what is done. Entries whose coroutine was killed are gone from the table.
local function drain(self, notifier)
  repeat
    local n = C.rg_notifier_drain(notifier, tags, TAGS)
    local woken = {}
    for i = 0, n - 1 do woken[i + 1] = tags[i] end
    for _, tag in ipairs(woken) do
      local entry = self.waiting[tag]
      if entry and entry.call then
        entry.call()
      elseif entry then
        entry.posted = true
        entry.sema:post(1)
      end
    end
  until n == 0
end

local function close_links(self)
  for _, link in pairs(self.links) do
    if link then link:close() end
  end
  self.links = {}
end

--- A notifier's socket takes one client, so pump and notifier end together.
local function retire(self, notifier)
  if self.notifier ~= notifier then return end
  close_links(self)
  self.notifier = nil
end

local function pump(premature, self, notifier)
  if premature then return retire(self, notifier) end
  local sock = ngx.socket.tcp()
  sock:settimeouts(FOREVER_MS, FOREVER_MS, FOREVER_MS)
  local ok = sock:connect("unix:" .. ffi.string(C.rg_notifier_path(notifier)))
  while ok do
    drain(self, notifier)
    if ngx.worker.exiting() and C.rg_notifier_in_flight(notifier) == 0 then break end
    ok = sock:receive(1)
  end
  drain(self, notifier)
  sock:close()
  retire(self, notifier)
end

--- Lets an idle worker exit: the pump would wait for ever.
local function watch(premature, self)
  if not premature then
    ngx.timer.at(WATCH_S, watch, self)
    return
  end
  local notifier = self.notifier
  close_links(self)
  if notifier and C.rg_notifier_in_flight(notifier) == 0 then
    retire(self, notifier)
    C.rg_notifier_close(notifier) -- the pump may be at it still: the collector frees it
  end
end

--- May an operation wait here?
function Nginx.may_wait()
  return YIELDABLE[ngx.get_phase()] == true and native.is_yieldable()
end

--- Waits that long while others go on; false at once where nobody would.
---@param seconds number
---@return boolean
function Nginx.rest(_, seconds)
  if not Nginx.may_wait() then return false end
  ngx.sleep(seconds)
  return true
end

local function start(self)
  local notifier = C.rg_notifier_new(self.engine, 1, err)
  if notifier == nil then return nil, errors.from_c(err) end
  notifier = ffi.gc(notifier, C.rg_notifier_free)
  local ok, why = ngx.timer.at(0, pump, self, notifier)
  if not ok then return nil, errors.new("LIMIT", "no timer for regolith's wake-ups: " .. why) end
  if not self.watched and not ngx.worker.exiting() then
    self.watched = ngx.timer.at(WATCH_S, watch, self) and true
  end
  self.notifier = notifier
  return notifier
end

--- What to do instead, by phase.
local INSTEAD = {
  init = "open the orm here, and use it in init_worker_by_lua with ngx.timer.at(0, ...) or in requests",
  init_worker = "hand it to ngx.timer.at(0, ...)",
  exit_worker = "nothing can be awaited any more; do it in requests or timers",
  set = "use rewrite_by_lua or access_by_lua and set the variable there",
  balancer = "do it in access_by_lua and keep the result in ngx.ctx",
  header_filter = "do it in access_by_lua or content_by_lua and keep the result in ngx.ctx",
  body_filter = "do it in access_by_lua or content_by_lua and keep the result in ngx.ctx",
  log = "keep what is needed in ngx.ctx, or hand it to ngx.timer.at(0, ...)",
}

local function check_phase()
  local phase = ngx.get_phase()
  if not YIELDABLE[phase] then
    return nil, errors.new("MISUSE", string.format("a database operation cannot wait in the phase '%s': %s", phase,
      INSTEAD[phase] or "run it in rewrite, access or content, or hand it to ngx.timer.at(0, ...)"))
  end
  if not native.is_yieldable() then
    return nil, errors.new("MISUSE", "a database operation cannot wait below a C function (require, a sort's "
      .. "comparison, string.gsub's function, an iterator of C): load the module in init_by_lua, or do it outside")
  end
  return true
end

--- Semaphores are used again unless a post may still be on its way.
local function take_entry(self)
  local pool = self.pool
  local entry = pool[#pool]
  if entry then
    pool[#pool] = nil
    return entry
  end
  local semaphore = require "ngx.semaphore"
  return { sema = semaphore.new(0) }
end

--- For what a link has, which has it no more when it does not answer in time. A semaphore may hold a post of
--- the operation before, which nobody waited for any more.
local function wait_for_link(op, entry, link, patience_ms)
  local woken
  repeat woken = entry.sema:wait(patience_ms / 1000) until entry.posted or not woken
  if not entry.posted then C.rg_link_leave(link.c, op) end
end

local function wait(self, op, entry, link, patience_ms)
  if link then wait_for_link(op, entry, link, patience_ms) end
  while C.rg_op_phase_of(op) ~= DONE or not entry.posted do
    entry.sema:wait(1)
    if C.rg_op_phase_of(op) == DONE and not entry.posted then
      return -- the pump died; the operation did not
    end
  end
  entry.posted = false
  if #self.pool < 256 then self.pool[#self.pool + 1] = entry end
end

-- ---- requests -----------------------------------------------------------------------------------
-- A request that is killed (its client went away, ngx.exit, ngx.thread.kill and its end) runs no code of
-- its coroutines any more. nginx itself calls the engine when a request ends: what the request has under
-- way or borrowed ends with it. Where nginx' symbols are not to be had the collector does it, later.

local function cleanup_list()
  local ok, base = pcall(require, "resty.core.base")
  if not ok or not base.get_request or ngx.config.subsystem ~= "http" then return nil end
  if not pcall(ffi.typeof, "rg_ngx_cleanup") then
    ffi.cdef [[
      typedef struct rg_ngx_cleanup {
        void (*handler)(void *); void *data; struct rg_ngx_cleanup *next;
      } rg_ngx_cleanup;
      rg_ngx_cleanup *ngx_http_cleanup_add(void *request, size_t size);
    ]]
  end
  if not pcall(function() return ffi.C.ngx_http_cleanup_add end) then return nil end
  return base.get_request
end

-- By address; the collector forgets those that have ended.
local requests, get_request = setmetatable({}, { __mode = "v" }), nil
-- Made once: each type of a function that is named is one more of the 65,536 types that a Lua state can have.
local end_request = ffi.cast("void (*)(void *)", C.rg_request_end)

--- The engine's object of the request at hand; nil where there is none.
local function request_of()
  if get_request == nil then get_request = cleanup_list() or false end
  local r = get_request and get_request()
  if not r then return nil end
  local address = tonumber(ffi.cast("uintptr_t", r))
  local request = requests[address]
  if request and C.rg_request_ended(request) == 0 then return request end
  local cleanup = ffi.C.ngx_http_cleanup_add(r, 0)
  request = cleanup ~= nil and C.rg_request_new() or nil
  if not request or request == nil then return nil end
  cleanup.handler, cleanup.data = end_request, request
  request = ffi.gc(request, C.rg_request_free)
  requests[address] = request
  return request
end

--- Has what was borrowed end with the request.
---@param kind "lease"|"lock"|"tx"
---@param handle ffi.cdata*
function Nginx.adopt(_, kind, handle)
  local request = request_of()
  if request then C["rg_request_add_" .. kind](request, handle) end
end

local function next_tag(self)
  self.tag = (self.tag + 1) % 4294967296
  return self.tag
end

--- Has fn called, in a timer of its own, when what `tell` arranges comes to pass. Keep the result: without
--- it nothing is called.
---@param tell fun(notifier: ffi.cdata*, tag: integer): boolean false: it has come to pass already
---@param fn function
---@return table? entry
function Nginx:watch(tell, fn)
  local notifier = self.notifier or start(self)
  if not notifier then return nil end
  local tag = next_tag(self)
  local function call() ngx.timer.at(0, function() fn() end) end
  local entry = { call = call }
  self.waiting[tag] = entry
  if not tell(notifier, tag) then call() end
  return entry
end

--- The link that may carry the operation, if any.
local function link_of(self, op, notifier)
  local pool = C.rg_op_link(op)
  if pool < 0 then return nil end
  local link = self.links[pool]
  if link == nil then
    link = links.new(self.engine, notifier, pool, function() drain(self, notifier) end) or false
    self.links[pool] = link
  end
  return link or nil
end

---@param op ffi.cdata* rg_op
---@param timeout_ms integer?
---@return true? ok
---@return regolith.Err? err
function Nginx:run(op, timeout_ms)
  local ok, fault = check_phase()
  if not ok then return nil, fault end
  local notifier = self.notifier
  if not notifier then
    notifier, fault = start(self)
    if not notifier then return nil, fault end
  end
  local entry = take_entry(self)
  local tag = next_tag(self)
  self.waiting[tag] = entry
  local link = link_of(self, op, notifier)
  local patience_ms = link and link:submit(op, tag, timeout_ms or 0) or 0
  if patience_ms <= 0 then
    link = nil
    if C.rg_op_submit(op, notifier, tag, timeout_ms or 0, err) < 0 then
      self.waiting[tag] = nil
      return nil, errors.from_c(err)
    end
  end
  local request = request_of()
  if request then C.rg_request_add_op(request, op) end
  wait(self, op, entry, link, patience_ms)
  C.rg_op_leave(op)
  self.waiting[tag] = nil
  if C.rg_op_code(op) < 0 then return nil, errors.from_c(C.rg_op_error(op)) end
  return true
end

function Nginx:close()
  local notifier = self.notifier
  if notifier then
    retire(self, notifier)
    C.rg_notifier_close(notifier) -- the pump may be at it still: the collector frees it
  end
end

return {
  --- In nginx at all (any phase)?
  here = function()
    local nginx = rawget(_G, "ngx")
    return type(nginx) == "table" and type(nginx.get_phase) == "function"
  end,
  ---@param engine ffi.cdata*
  ---@return regolith.Host
  new = function(engine)
    local waiting = setmetatable({}, { __mode = "v" })
    return setmetatable({ engine = engine, waiting = waiting, pool = {}, tag = 0, links = {} }, Nginx)
  end,
}
