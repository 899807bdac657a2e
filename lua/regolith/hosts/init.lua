-- SPDX-License-Identifier: MIT
-- Which host a program is: the one that was named, or what is found.

local blocking = require "regolith.hosts.blocking"
local errors = require "regolith.err"
local native = require "regolith.native"

local ffi = native.ffi
ffi.cdef "int poll(void *fds, unsigned long n, int timeout_ms);"

local M = {}

--- In the order of detection.
M.NAMES = { "nginx", "cqueues", "luv", "blocking" }

local function module_of(name) return require("regolith.hosts." .. name) end

local function detect()
  for _, name in ipairs(M.NAMES) do
    local host = name == "blocking" and blocking or module_of(name)
    if not host.here or host.here() then return host end
  end
end

---@param name string? nil: what is found
---@param engine ffi.cdata*
---@return regolith.Host?
---@return regolith.Err? err
function M.new(name, engine)
  if not name then return detect().new(engine) end
  local host = module_of(name)
  if name == "nginx" and not host.here() then
    return nil, errors.new("CONFIG", "host = \"nginx\": this program is not run by nginx")
  end
  local ok, made = pcall(host.new, engine)
  if not ok then return nil, errors.new("CONFIG", string.format("host = %q: %s", name, tostring(made))) end
  return made
end

--- Waits that long, as the host does: others go on meanwhile where there are others.
---@param seconds number
function M.pause(seconds)
  local nginx = rawget(_G, "ngx")
  if nginx and nginx.sleep then return nginx.sleep(seconds) end
  if module_of("cqueues").pause(seconds) or module_of("luv").pause(seconds) then return end
  ffi.C.poll(nil, 0, math.floor(seconds * 1000))
end

return M
