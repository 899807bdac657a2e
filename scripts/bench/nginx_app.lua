-- SPDX-License-Identifier: MIT
-- What scripts/bench/nginx serves: a get by id, three fields of it as JSON, by Regolith and by hand.

local cjson = require "cjson"
local model = require "model"
local mysql = require "nginx_mysql"

local found, redis = pcall(require, "resty.redis")
if not found then redis = require "nginx.redis" end

local random, format = math.random, string.format
local ROWS = model.ROWS

local M = { GETS = 20 }

---@param given table mysql_socket, redis_socket, db, user, password, connections
function M.new(given)
  local function open(cache)
    local User = model.entity("bench_user", cache)
    return require("regolith").open {
      mysql = { socket = given.mysql_socket, user = "root", db = given.db },
      redis = { socket = given.redis_socket },
      entities = { User },
      process_cache = { mb = 256 },
    }, User
  end

  local function of(cache)
    local orm, User = open(cache)
    assert(orm, User)
    return function(id)
      local db = orm:session()
      local user, err = db:get(User, id)
      if not user then error(tostring(err)) end
      local text = cjson.encode { id = user.id, email = user.email, visits = user.visits }
      db:close()
      return text
    end, orm, User
  end

  local pages = {}
  pages.ours_redis = of { redis = true }
  pages.ours_mysql = of(false)
  local page, process, ProcessUser = of { process = true, redis = true }
  pages.ours_process = page

  --- M.GETS rows in one request, one after the other.
  function pages.ours_process_20(first)
    local db, users = process:session(), {}
    for i = 1, M.GETS do
      local user = db:get(ProcessUser, (first + i * 37) % ROWS + 1)
      if not user then error("no row") end
      users[i] = { id = user.id, email = user.email, visits = user.visits }
    end
    local text = cjson.encode(users)
    db:close()
    return text
  end

  local PATTERN = "^" .. ("([^\t]*)\t"):rep(9) .. "([^\t]*)$"

  local function redis_connect()
    local red = redis:new()
    red:set_timeout(10000)
    local ok, err = red:connect("unix:" .. given.redis_socket, { pool_size = given.connections })
    if not ok then error(err) end
    return red
  end

  --- The row is kept as its ten fields with tabs between: one pattern takes it apart.
  local function redis_get(red, id)
    local text, err = red:get("raw:bench_user:" .. id)
    if not text then error(err) end
    local user = {}
    user.email, user.name, user.city, user.state, user.visits, user.points, user.score, user.active, user.credit,
      user.seen = text:match(PATTERN)
    return { id = id, email = user.email, visits = tonumber(user.visits) }
  end

  function pages.raw_redis(id)
    local red = redis_connect()
    local user = redis_get(red, id)
    red:set_keepalive(600000)
    return cjson.encode(user)
  end

  function pages.raw_redis_20(first)
    local red, users = redis_connect(), {}
    for i = 1, M.GETS do users[i] = redis_get(red, (first + i * 37) % ROWS + 1) end
    red:set_keepalive(600000)
    return cjson.encode(users)
  end

  local server = {
    socket = given.mysql_socket, user = given.user, password = given.password, db = given.db, size = given.connections,
  }
  local SELECT = "SELECT id,email,name,city,state,visits,points,score,active,credit,seen FROM bench_user WHERE id=%d"

  function pages.raw_mysql(id)
    local sock, err = mysql.connect(server)
    if not sock then error(err) end
    local rows
    rows, err = mysql.query(sock, format(SELECT, id))
    if not rows then error(err) end
    mysql.keep(sock)
    local user = rows[1]
    return cjson.encode { id = tonumber(user.id), email = user.email, visits = tonumber(user.visits) }
  end

  --- What HTTP, nginx' Lua and the JSON cost by themselves.
  function pages.nothing(id) return cjson.encode { id = id, email = "user@example.org", visits = 1 } end
  function pages.nothing_20(first)
    local users = {}
    for i = 1, M.GETS do users[i] = { id = (first + i * 37) % ROWS + 1, email = "user@example.org", visits = i } end
    return cjson.encode(users)
  end

  local function serve(name)
    local answer = pages[name]
    return function() ngx.print(answer(random(ROWS))) end
  end

  --- Fills the process cache, once it may be used.
  local function warm()
    while true do
      model.read_all(process, ProcessUser)
      if process:stats().coherent and M.warmed then break end
      M.warmed = process:stats().coherent -- the next time round all rows stay
      ngx.sleep(0.05)
    end
    math.randomseed(ngx.worker.pid())
    ngx.shared.bench:incr("warm", 1, 0)
  end

  return {
    page = serve,
    warm = function() assert(ngx.timer.at(0, warm)) end,
    --- One row by each page, to compare.
    check = function() ngx.print(pages[ngx.var.arg_page](tonumber(ngx.var.arg_id))) end,
    ready = function() ngx.print(ngx.shared.bench:get "warm" or 0) end,
    misses = function() ngx.print(process:counter "regolith_process_cache_misses_total") end,
  }
end

return M
