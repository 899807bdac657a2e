-- SPDX-License-Identifier: MIT
-- A small JSON API: GET /packages?section=NAME&page=N, GET /packages/NAME/ARCH, PUT /packages/NAME/ARCH.

local model = require "model"
local regolith = require "regolith"
local web = require "regolith.nginx"

local M = { orm = assert(regolith.open { entities = model.ENTITIES }) }
local Package, Section = model.Package, model.Section

local STATUS = {
  INVALID = 400, CONFLICT = 409, DUPLICATE_KEY = 409, PENDING = 503, LIMIT = 503, UNAVAILABLE = 503, TIMEOUT = 504,
}

local function answer(status, value)
  ngx.status = status
  ngx.header["Content-Type"] = "application/json"
  ngx.say(regolith.json_encode(value))
end

local function fail(err)
  ngx.log(ngx.WARN, tostring(err))
  local status = STATUS[err.code] or 500
  if status == 503 then ngx.header["Retry-After"] = 1 end
  answer(status, { error = err.code, field = err.field, message = status < 500 and err.message or nil })
end

local function show(package)
  return {
    name = package.name, arch = package.arch, version = package.version, section = package.section.name,
    installed_kib = package.installed_kib, summary = package.summary, views = package.views,
  }
end

local function list(db)
  local section, err = db:by(Section, "name", ngx.var.arg_section or "")
  if err then return fail(err) end
  if not section then return answer(404, { error = "no such section" }) end
  local page, total
  page, total, err = db:search(Package, "section_id = ? order by name", section)
    :page_with_count(math.max(tonumber(ngx.var.arg_page) or 1, 1), 20)
  if not page then return fail(total or err) end
  local packages = regolith.array()
  for i, package in ipairs(page) do packages[i] = show(package) end
  answer(200, { packages = packages, total = total })
end

local METHODS = {}

--- The page is counted behind the request's back: the write is queued, one worker applies it.
function METHODS.GET(db, package)
  package.views = package.views + 1
  local ok, err = db:flush_async()
  if not ok then ngx.log(ngx.WARN, tostring(err)) end
  answer(200, show(package))
end

function METHODS.PUT(db, package)
  ngx.req.read_body()
  local given = regolith.json_decode(ngx.req.get_body_data() or "")
  if type(given) ~= "table" or type(given.summary) ~= "string" then
    return answer(400, { error = "a JSON object with 'summary' is wanted" })
  end
  package.summary = given.summary
  local ok, err = db:flush()
  if not ok then return fail(err) end
  answer(200, show(package))
end

--- Refuses to start without a token: see REGOLITH_CONSOLE_TOKEN in `start`.
M.console = require("regolith.console").new(M.orm, {
  dict = "console", title = "Packages",
  on_action = function(action)
    ngx.log(ngx.NOTICE, "console: ", action.action, " by ", action.remote, ": ", action.ok and "done" or "failed")
  end,
  on_error = function(fault) ngx.log(ngx.ERR, "console: ", tostring(fault)) end,
})

function M.no_such_page()
  answer(404, { error = "no such page", pages = {
    "/packages?section=libs&page=1", "/packages/NAME/ARCH", "/ready", "/metrics", "/console/",
  } })
end

function M.serve()
  local db = web.session(M.orm, { timeout_ms = 5000 })
  local name, arch = ngx.var.uri:match "^/packages/([^/]+)/([^/]+)$"
  if not name then return list(db) end
  local package, err = db:by(Package, "release", { name, arch })
  if err then return fail(err) end
  if not package then return answer(404, { error = "no such package" }) end
  local method = METHODS[ngx.req.get_method()]
  if not method then return answer(405, { error = "GET or PUT" }) end
  method(db, package)
end

return M
