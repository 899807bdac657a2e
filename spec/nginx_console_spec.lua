-- SPDX-License-Identifier: MIT
-- The console as it is met: through nginx with two workers, and in a browser where there is one.

local browsers = require "support.browser"
local faults = require "support.faults"
local nginx = require "support.nginx"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local run = nginx.available() and describe or pending

local TOKEN = "3f9c1d0b7a5e42c8b6d1e0f4"
local EVIL = "<img src=x onerror=hacked=1><script>hacked=2</script>"

local ENTITIES = [[
  local regolith = require "regolith"
  local field = regolith.field
  return { regolith.entity("item", {
    field.string "name" { required = true, unique = true, length = 60 },
    field.uint32 "n",
    field.string "note" { nullable = true },
    cache = { process = true, redis = true },
  }) }
]]

local APP = [[
  local regolith = require "regolith"
  local web = require "regolith.nginx"
  local orm = assert(regolith.open(@orm))
  local M = { console = require("regolith.console").new(orm, { token = @token, dict = "console", interval_s = 1,
    title = "Spec" }) }
  function M.start() web.sample(M.console) end
  function M.serve()
    if M.console:owns(ngx.var.uri) then return web.console(M.console) end
    local db = web.session(orm)
    local item = db:by(require("entities")[1], "name", "there")
    ngx.say(item and item.n or "none")
    web.close()
  end
  return M
]]

run("the console in nginx", function()
  local world, orm, db, web, port, Item

  setup(function()
    world = support.world()
    Item = must(loadstring(ENTITIES))()[1]
    orm = world:open { Item }
    db = orm:session()
    port = faults.free_port()
    web = nginx.start {
      app = APP:gsub("@token", '"' .. TOKEN .. '"'), workers = 2, files = { ["entities.lua"] = ENTITIES },
      orm = string.format("{ mysql = %q, redis = %q, prefix = %q, entities = require 'entities' }",
        world.mysql_url(world.name), world.redis_url(), world.name),
      http = "lua_shared_dict console 4m; init_worker_by_lua_block { app.start() }",
      server = string.format("listen 127.0.0.1:%d; client_body_buffer_size 64k; client_max_body_size 128k;", port),
    }
  end)
  teardown(function()
    db:close()
    web:stop "a client request body is buffered"
    world:close()
  end)

  local HEADER = "-m 20 -H 'X-Regolith-Token: " .. TOKEN .. "'"

  local function get(path)
    local text, _, status = web:get("console/api/" .. path, HEADER)
    assert.equal(200, status, text)
    return regolith.json_decode(text)
  end

  --- A queued insert of a name that is taken: the number of its letter and the id.
  local function dead(name, id)
    must(db:execute("INSERT INTO item (id, name, n) VALUES (?, ?, 1)", id, name))
    must(orm:invalidate(Item))
    local item = must(db:new(Item, { name = name, n = 7, note = EVIL }))
    must(db:flush_async())
    support.drain(orm)
    local letters = must(orm:dead_letters())
    return letters[#letters].number, item.id
  end

  it("is served: the page to anybody, data to who has the token", function()
    local text, _, status = web:get "console/"
    assert.equal(200, status)
    assert.matches("<title>Spec</title>", text)
    assert.equal(401, (select(3, web:get "console/api/overview")))
    assert.equal("Spec", get("session").title)
    local long = string.format("%s -X POST -H 'Content-Type: application/json' -d @%s/long", HEADER, web.folder)
    web:write("long", '{"a":"' .. ("x"):rep(100000) .. '"}')
    assert.equal(413, (select(3, web:get("console/api/letters/drop", long))))
    assert.equal(403, (select(3, web:get("console/api/overview", HEADER .. " -H 'Sec-Fetch-Site: cross-site'"))))
  end)

  it("tells of all workers, whichever answers, also of times when nobody looked", function()
    local overview
    faults.await("both workers", function()
      overview = get "overview"
      return overview.processes == 2 and #overview.points >= 2
    end)
    assert.is_false(overview.partial)
    local before = overview.counts.mysql
    for _ = 1, 20 do web:get "x" end
    faults.await("what both have done", function() return get("overview").counts.mysql > before end)
    faults.await("a point of both", function()
      for _, point in ipairs(get("overview").points) do
        if point.workers == 2 then return true end
      end
    end)
  end)

  it("counts wrong tokens of all workers together", function()
    local wrong = "-m 20 --no-keepalive -H 'X-Forwarded-For: 1.2.3.4' -H 'X-Regolith-Token: wrong'"
    local statuses = {}
    for i = 1, 7 do statuses[i] = select(3, web:get("console/api/session", wrong)) end
    assert.same({ 401, 401, 401, 401, 401, 429, 429 }, statuses)
    support.shell(string.format("curl -s -o /dev/null http://127.0.0.1:%d/console/", port))
    local status = support.shell(string.format("curl -s -o /dev/null -w '%%{http_code}' -H 'X-Regolith-Token: %s' "
      .. "http://127.0.0.1:%d/console/api/session", TOKEN, port))
    assert.equal("200", status) -- another address
  end)

  it("keeps nginx from starting without a token, and says why", function()
    local settings = "{ mysql = 'mysql://x@localhost/x', entities = {} }"
    web:write("bad.lua", (APP:gsub("token = @token,", ""):gsub("@orm", settings)))
    local conf = web:read("nginx.conf"):gsub('require "app"', 'require "bad"'):gsub("web%.sock", "bad.sock")
    conf = conf:gsub("listen 127[^;]*;", ""):gsub("error%.log", "bad.log"):gsub("nginx%.pid", "bad.pid")
    web:write("bad.conf", conf)
    local command = string.format("/usr/sbin/nginx -p %s -c %s/bad.conf", web.folder, web.folder)
    local out = support.shell(command, true)
    local pid = web:read "bad.pid"
    if pid ~= "" then support.shell(command .. " -s quit") end
    assert.matches("console: option 'token' is missing", out .. web:read "bad.log")
    assert.equal("", pid)
  end)

  -- ---- in a browser ----

  local chromium = browsers.program() and it or pending

  chromium("is signed in to, shows what there is as text, and mends dead letters", function()
    local first, first_id = dead("taken", 900001)
    local second = dead("x" .. EVIL, 950001)
    local page = browsers.start()
    local ok, fault = pcall(function()
      page:resize(1280, 900)
      page:open(string.format("http://127.0.0.1:%d/console/", port))
      page:await "document.activeElement && document.activeElement.id === 'token'"
      page:type "not the token at all"
      page:key "Enter"
      page:await "document.body.textContent.includes('This is not the token.')"
      page:eval "document.getElementById('token').value = ''"
      page:type(TOKEN)
      page:key "Enter"

      -- the overview draws itself
      page:await "document.querySelectorAll('.tile').length === 6 && document.querySelector('.chart path.line')"
      assert.equal(6, page:eval "document.querySelectorAll('.chart svg[role=img][aria-label]').length")
      page:await "[...document.querySelectorAll('.tile')].some(t => t.textContent.startsWith('Dead letters2'))"
      assert.is_true(#page:screenshot() > 20000)

      -- the token is in no address, cookie or element
      assert.equal("", page:eval "document.cookie")
      assert.is_nil(page:eval("location.href"):find(TOKEN, 1, true))
      assert.is_nil(page:eval("document.documentElement.outerHTML"):find(TOKEN, 1, true))
      assert.is_nil(page:eval("performance.getEntriesByType('resource').map(e => e.name).join()"):find(TOKEN, 1, true))

      -- hidden values, then shown ones, as text
      page:eval "document.querySelector('nav a[href=\"#/letters\"]').click()"
      page:await "document.querySelectorAll('tbody tr').length === 2"
      page:eval(string.format("document.querySelector('[data-key=\"open %d\"]').click()", second))
      page:await "document.querySelector('dialog[open] .veil')"
      assert.is_nil(page:eval("document.body.textContent"):find("onerror", 1, true))
      page:eval "document.querySelector('dialog[open] .link').click()"
      page:await(string.format("document.body.textContent.includes(%s)",
        regolith.json_encode("x" .. EVIL)))
      assert.equal(1, page:eval "document.scripts.length")
      assert.equal(0, page:eval "document.images.length")
      assert.equal("undefined", page:eval "typeof hacked")
      page:key "Escape"
      page:await "!document.querySelector('dialog')"

      -- one is changed and applied
      page:eval(string.format("document.querySelector('[data-key=\"open %d\"]').click()", first))
      page:await "document.querySelector('dialog[open] [data-do=edit]')"
      page:eval "document.querySelector('dialog [data-do=edit]').click()"
      page:await "document.querySelector('dialog[open] input[name=name]')"
      page:eval "document.querySelector('dialog input[name=name]').select()"
      page:type "mended"
      page:eval "document.querySelector('dialog [data-do=save-retry]').click()"
      page:await "document.querySelectorAll('tbody tr').length === 1"
      assert.equal("mended", must(db:query("SELECT name FROM item WHERE id = ?", first_id))[1].name)

      -- the other one is dropped, by the keyboard, when that is confirmed
      page:eval "document.querySelector('tbody input[type=checkbox]').focus()"
      page:key "Space"
      page:await "document.querySelector('[data-do=drop-some]:enabled')"
      page:eval "document.querySelector('[data-do=drop-some]').focus()"
      page:key "Enter"
      page:await "document.querySelector('dialog[open]')"
      page:key "Escape"
      page:await "!document.querySelector('dialog')"
      assert.equal(1, #must(orm:dead_letters()))
      page:key "Enter"
      page:await "document.querySelector('dialog[open] [data-do=confirm]')"
      page:key "Tab"
      page:await "document.activeElement.dataset.do === 'confirm'"
      page:key "Enter"
      page:await "document.querySelector('.empty') && document.querySelector('.empty').textContent.includes('No dead')"
      assert.same({}, must(orm:dead_letters()))

      -- every page, on a desk and on a phone, light and dark: nothing overflows, everything has a name
      for _, size in ipairs { { 1280, 900 }, { 360, 740, true } } do
        page:resize(size[1], size[2], size[3], size[3])
        for _, name in ipairs { "overview", "letters", "slow", "schema", "events", "callbacks" } do
          page:eval("location.hash = '#/" .. name .. "'")
          page:await("document.querySelector('nav a[aria-current]').getAttribute('href') === '#/" .. name .. "'"
            .. " && document.querySelector('main h1') && document.querySelector('main').textContent.length > 40")
          assert.is_true(page:eval "document.documentElement.scrollWidth <= innerWidth", name)
          assert.same("", page:eval [[ [...document.querySelectorAll('input, select, textarea, button, a')].filter(e =>
            !(e.textContent.trim() || e.getAttribute('aria-label') || (e.labels && e.labels.length)))
            .map(e => e.outerHTML).join() ]])
        end
      end

      page:eval "document.querySelector('[data-key=out]').click()"
      page:await "document.getElementById('token')"
      assert.equal(0, page:eval "sessionStorage.length")
      assert.same({}, page.faults)
    end)
    page:close()
    if not ok then error(fault, 0) end
  end)
end)
