-- SPDX-License-Identifier: MIT
-- The example application, as a person starts it.

local faults = require "support.faults"
local nginx = require "support.nginx"
local regolith = require "regolith"
local support = require "support.init"

local root = os.getenv "REGOLITH_ROOT" or "."
local run = nginx.available() and support.shell "command -v dpkg" ~= "" and describe or pending

run("examples/api", function()
  local folder, process

  local function get(path, options)
    local text = support.shell(string.format("curl -s -m 10 %s --unix-socket %s/s -w '\n%%{http_code}' 'http://x%s'",
      options or "", folder, path))
    local body, status = text:match "^(.*)\n(%d+)$"
    return tonumber(status), body
  end

  setup(function()
    folder = support.shell("mktemp -d"):gsub("\n", "")
    -- takes the place of luajit, so that a signal reaches it
    faults.write_file(folder .. "/run.lua", string.format([[
      local ffi = require "ffi"
      ffi.cdef "int execv(const char *path, const char *const argv[]);"
      local words = { "start", "unix:%s/s" }
      ffi.C.execv("%s/examples/api/start", ffi.new("const char *[3]", words))]], folder, root))
    process = faults.spawn(folder .. "/run.lua", { EXAMPLE_SERVERS = "--temp example-" .. folder:match "[^.]+$" })
    faults.await("the example", function() return get "/ready" == 200 end, 60)
  end)
  teardown(function()
    process:signal "TERM"
    process:wait(30)
    support.shell("rm -rf " .. folder)
  end)

  it("serves packages, counts views in the queue, takes changes", function()
    local status, body = get "/packages/libc6/amd64"
    assert.equal(200, status, body)
    local package = regolith.json_decode(body)
    assert.equal("libc6", package.name)
    faults.await("the consumer", function()
      status, body = get "/packages/libc6/amd64"
      return status == 200 and regolith.json_decode(body).views >= 2
    end)
    status, body = get("/packages/libc6/amd64", "-X PUT -d '{\"summary\":\"the C library\"}'")
    assert.equal(200, status, body)
    assert.equal("the C library", regolith.json_decode(body).summary)
    assert.equal(400, (get("/packages/libc6/amd64", "-X PUT -d nothing")))
    assert.equal(404, (get "/packages/none/amd64"))
    status, body = get "/"
    assert.equal(404, status)
    assert.matches("/packages%?section=libs", regolith.json_decode(body).pages[1])
    status, body = get("/packages/libc6/amd64", "-X PUT -d '{\"summary\":\"" .. ("x"):rep(900) .. "\"}'")
    assert.equal(400, status, body)
    assert.matches("summary: text too long", regolith.json_decode(body).message)
    status, body = get("/packages?section=" .. package.section)
    assert.equal(200, status, body)
    assert.is_true(regolith.json_decode(body).total >= 1)
  end)

  it("tells whether it is ready, and its metrics", function()
    local status, body = get "/ready"
    assert.equal(200, status)
    assert.is_true(regolith.json_decode(body).ready)
    status, body = get "/metrics"
    assert.equal(200, status)
    assert.matches("regolith_worker_threads %d", body)
  end)

  it("has a console, whose token it prints", function()
    local token = process:output():match "the token of the console: (%x+)"
    assert.equal(32, #token)
    local status, body = get "/console/"
    assert.equal(200, status)
    assert.matches("<title>Packages</title>", body)
    assert.equal(401, (get "/console/api/overview"))
    status, body = get("/console/api/overview", "-H 'X-Regolith-Token: " .. token .. "'")
    assert.equal(200, status, body)
    assert.equal("default", regolith.json_decode(body).pools[1].name)
  end)
end)
