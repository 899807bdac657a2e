-- SPDX-License-Identifier: MIT
-- An nginx with Lua for specs: a folder of its own, a socket in it, and an application under test.
--
--   local web = nginx.start { app = [[ return { serve = function() ... end } ]], orm = "{ mysql = ... }" }
--   web:get "path?x=1"
--   web:stop()                 asserts that nothing was logged as an error

local ffi = require "ffi"
local faults = require "support.faults"
local support = require "support.init"

local must = support.must
local M = {}

local CONFIG = [[
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
user root;
daemon on;
worker_processes @workers;
pid @folder/nginx.pid;
error_log @folder/error.log notice;
env REGOLITH_BUILD_DIR;
@main
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path @folder/t1; proxy_temp_path @folder/t2; fastcgi_temp_path @folder/t3;
  uwsgi_temp_path @folder/t4; scgi_temp_path @folder/t5;
  lua_package_path "@folder/?.lua;@lua_path";
  lua_package_cpath "@lua_cpath";
  lua_check_client_abort on;
  init_by_lua_block { app = require "app" }
  @http
  server {
    listen unix:@folder/web.sock;
    default_type text/plain;
    location = /ping { content_by_lua_block { ngx.say "pong" } }
    location = /pid { content_by_lua_block { ngx.say(ngx.worker.pid()) } }
    location / { content_by_lua_block { app.serve() } }
    @server
  }
}
]]

--- Is there one to test with?
function M.available()
  return support.shell [[
    test -e /usr/lib/nginx/modules/ngx_http_lua_module.so && command -v curl >/dev/null && command -v /usr/sbin/nginx
  ]] ~= ""
end

---@class Nginx
---@field folder string
local Nginx = {}
Nginx.__index = Nginx

function Nginx:write(name, text) faults.write_file(self.folder .. "/" .. name, text) end

--- Runs nginx with arguments (none: starts it); its output.
function Nginx:command(arguments)
  return support.shell(string.format("/usr/sbin/nginx -p %s -c %s/nginx.conf %s", self.folder, self.folder,
    arguments or ""), true)
end

local function curl(self, path, options)
  return string.format("curl -s %s --unix-socket %s/web.sock 'http://x/%s'", options or "-m 20", self.folder, path)
end

--- Body of a page, its time in milliseconds, its status.
function Nginx:get(path, options)
  local text = support.shell(curl(self, path, "-w '\n%{http_code} %{time_total}' " .. (options or "-m 20")))
  local body, status, seconds = text:match "^(.*)\n(%d+) ([%d.]+)$"
  return body and (body:gsub("\n$", "")), tonumber(seconds) and tonumber(seconds) * 1000, tonumber(status)
end

--- Begins a request whose body goes to a file of the folder.
function Nginx:begin(path, file)
  support.shell(string.format("%s >%s/%s 2>&1 &", curl(self, path), self.folder, file or "out"))
end

local address = ffi.new "rgspec_unix"

--- Sends a request and hangs up after so many milliseconds, whatever came. Of a page that is asked to say
--- that it has begun (`begin=1`) that is awaited first: nginx does not notice who went before it had read the
--- request, and serves it to its end.
---@param folder string of the nginx
function M.abort(folder, path, after_ms)
  local text = string.format("GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", path)
  address.family = 1
  ffi.copy(address.path, folder .. "/web.sock")
  local fd = ffi.C.socket(1, 1, 0)
  local ok = ffi.C.connect(fd, address, ffi.sizeof "rgspec_unix") == 0 and ffi.C.write(fd, text, #text) == #text
  if ok and path:find "[?&]begin=1" then ffi.C.read(fd, ffi.new "char[1]", 1) end
  if ok and after_ms > 0 then faults.pause(after_ms) end
  ffi.C.close(fd)
  return ok
end

function Nginx:abort(path, after_ms) return M.abort(self.folder, path, after_ms) end

--- Descriptors and threads of a process, and its memory in KiB.
function M.usage(pid)
  local status = io.open("/proc/" .. pid .. "/status", "r")
  local text = status and status:read "*a" or ""
  if status then status:close() end
  local _, fds = support.shell("ls /proc/" .. pid .. "/fd"):gsub("\n", "")
  return { fds = fds, threads = tonumber(text:match "Threads:%s+(%d+)"), kib = tonumber(text:match "VmRSS:%s+(%d+)") }
end

--- What a file of the folder holds; "" when there is none.
function Nginx:read(name)
  local file = io.open(self.folder .. "/" .. name, "r")
  if not file then return "" end
  local text = file:read "*a"
  file:close()
  return text
end

function Nginx:master() return tonumber((self:read("nginx.pid"):match "%d+")) end

--- Process ids of the workers, those that are shutting down too.
function Nginx:workers()
  local list = {}
  for pid in support.shell("pgrep -P " .. self:master()):gmatch "%d+" do list[#list + 1] = tonumber(pid) end
  return list
end

--- Lines of the log that should not be there.
function Nginx:faults()
  return support.shell("grep -E '\\[(error|crit|alert|emerg|warn)\\]|signal (6|11)' " .. self.folder .. "/error.log")
end

--- Ends it; asserts that nothing was logged as an error but for lines that match `expected`.
function Nginx:stop(expected)
  local master = self:master()
  self:command "-s quit"
  pcall(faults.await, "the end of nginx", function() return self:master() == nil end, 20)
  local ended = self:master() == nil
  if not ended and master then support.shell("kill -9 " .. master) end
  local wrong = {}
  for line in self:faults():gmatch "[^\n]+" do
    if not expected or not line:find(expected) then wrong[#wrong + 1] = line end
  end
  support.shell("rm -rf '" .. self.folder .. "'")
  must(ended, "nginx did not end")
  must(#wrong == 0, table.concat(wrong, "\n"))
end

--- Starts one. `app` is the text of a module with a function `serve`; `@orm` in it is the given
--- configuration. main, http, server: more of nginx's configuration; files: more files of the folder.
---@param given table app, orm, main?, http?, server?, workers?, files?
---@return Nginx
function M.start(given)
  local self = setmetatable({ folder = support.shell("mktemp -d"):gsub("\n", "") }, Nginx)
  local values = {
    folder = self.folder, orm = given.orm, lua_path = package.path:gsub("\n", ""), lua_cpath = package.cpath,
    main = given.main or "", http = given.http or "", server = given.server or "", workers = given.workers or 1,
  }
  local function fill(text)
    return (text:gsub("@([%a_]+)", function(name) return values[name] and tostring(values[name]) end))
  end
  self:write("nginx.conf", fill(fill(CONFIG)))
  self:write("app.lua", fill(given.app))
  for name, text in pairs(given.files or {}) do self:write(name, fill(text)) end
  local out = self:command()
  must(pcall(faults.await, "nginx", function() return self:get "ping" == "pong" end, 10), out .. self:read "error.log")
  return self
end

return M
