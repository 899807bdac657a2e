-- SPDX-License-Identifier: MIT
local config = require "regolith.config"
local regolith = require "regolith"
local url = require "regolith.url"
local must = require("support.init").must

local User = regolith.entity("user", { regolith.field.bool "a" })

local function parse(server, text)
  local faults = {}
  local pool = url.parse(server, text, function(fault) faults[#faults + 1] = fault end)
  return pool, table.concat(faults, "\n")
end

local function read(given)
  given.entities = given.entities or { User }
  return config.read(given)
end

describe("config:url", function()
  it("reads a MySQL address", function()
    local pool, faults = parse("mysql", "mysql://app:s%40c%2Fret@db.example:3307/shop?tls=verify&ca=/etc/ca.pem&pool=4")
    assert.equal("", faults)
    assert.same({
      user = "app", password = "s@c/ret", host = "db.example", port = 3307, db = "shop", tls = "verify",
      ca = "/etc/ca.pem", pool = 4,
    }, pool)
  end)

  it("reads sockets", function()
    assert.same({ socket = "/run/my sql.sock", user = "root", db = "app" },
      (parse("mysql", "mysql+unix:///run/my%20sql.sock?user=root&db=app")))
    assert.same({ socket = "/run/redis.sock", db = 2 }, (parse("redis", "redis+unix:///run/redis.sock?db=2")))
  end)

  it("reads Redis addresses", function()
    assert.same({ host = "localhost" }, (parse("redis", "redis://localhost")))
    assert.same({ host = "::1", port = 6380, db = 3, password = "pw" }, (parse("redis", "redis://:pw@[::1]:6380/3")))
    assert.equal("verify", parse("redis", "rediss://host").tls)
    assert.equal("encrypt", parse("redis", "rediss://host?tls=encrypt").tls)
    local by_query, none = parse("mysql", "mysql://host/shop?user=app@tenant")
    assert.same({ "app@tenant", "" }, { by_query.user, none })
  end)

  it("names what is wrong without repeating the address", function()
    local wrong = {
      ["http://secret@x"] = "must be a URL that starts with mysql://",
      ["redis://secret@x"] = "must be a URL that starts with mysql://",
      ["mysql://u:secret@/db"] = "has no host",
      ["mysql://u:secret@h:0/db"] = "port must be from 1 to 65535",
      ["mysql://u:secret%zz@h/db"] = "its password has a '%%'",
      ["mysql://u:secret@h/db?poool=3"] = "unknown option 'poool' %(did you mean 'pool'%?%)",
      ["mysql://u:secret@h/db?pool=x"] = "option 'pool' must be an integer",
      ["mysql://u:secret@h/db?pool"] = "option 'pool' has no value",
      ["mysql://u:secret@h/db?tls=maybe"] = "option 'tls' must be",
      ["mysql://u:secret@h/a/b"] = "one database name",
      ["mysql://u:se?cret/secret@h/db"] = "'/' or '%?' in its user or password: to be written as %%2F and %%3F",
      ["mysql://u:se?secret=1@h/db"] = "'/' or '%?' in its user or password",
      ["mysql://u:se/secret@h/db"] = "'/' or '%?' in its user or password",
      ["mysql://u:1?secret@h/db"] = "an option that is not understood",
      ["mysql+unix://secret/x"] = "three slashes",
      ["mysql+unix:///"] = "names no socket",
      ["mysql+unix:///x?user=u&password=secret&db=d"] = "a password before its host, or by password_file",
    }
    for text, why in pairs(wrong) do
      local _, faults = parse("mysql", text)
      assert.matches(why, faults)
      assert.is_nil(faults:find("secret", 1, true), faults)
    end
  end)
end)

describe("config:read", function()
  it("takes one pool or several by name", function()
    local one = read { mysql = "mysql://u@h/d", redis = "redis://r" }
    assert.same({}, one.faults)
    assert.equal("default", one.mysql[1].name)
    local two = read { mysql = { default = "mysql://u@h/d", logs = { url = "mysql://u@h/l", pool = 2 } } }
    assert.same({}, two.faults)
    assert.equal("logs", two.mysql[2].name)
    assert.equal(2, two.mysql[2].pool)
    local plain = read { mysql = { host = "h", database = "d", user = "u", password = "p" } }
    assert.same({}, plain.faults)
    assert.equal("d", plain.mysql[1].db)
  end)

  it("finds what is missing or unknown, all at once", function()
    local c = config.read {
      mysql = { default = "mysql://u@h", logs = 5 }, proces_cache_mb = 1, entities = { User, User, 1 },
    }
    local faults = table.concat(c.faults, "\n")
    assert.matches("mysql pool 'default': names no database", faults)
    assert.matches("mysql pool 'logs': must be a URL or a table", faults)
    assert.matches("unknown option 'proces_cache_mb' %(did you mean 'process_cache_mb'%?%)", faults)
    assert.matches("user: two entities have this name", faults)
    assert.matches("entry 3 is not an entity", faults)
    assert.matches("log: needs a 'handler'",
      table.concat(read({ mysql = "mysql://u@h/d", log = { mysql = true } }).faults))
    assert.matches("no server is given", table.concat(read({}).faults))
    assert.matches("a list of entities is needed", table.concat(config.read({ mysql = "mysql://u@h/d" }).faults))
    for _, given in ipairs { User, { user = User }, { [0] = User }, { [1.5] = User } } do
      assert.matches("a list of entities is needed",
        table.concat(config.read({ mysql = "mysql://u@h/d", entities = given }).faults))
    end
    local own = { regolith.entity("_regolith_ids", { regolith.field.bool "a" }),
      regolith.entity("own", { regolith.field.bool "a", table = "_Regolith_dead" }) }
    faults = table.concat(config.read({ mysql = "mysql://u@h/d", entities = own }).faults, "\n")
    assert.matches("_regolith_ids: tables whose names start with", faults)
    assert.matches("own: tables whose names start with", faults)
  end)

  it("takes no list of entities that would be cut short without a word", function()
    for text, given in pairs {
      ["a list of entities is needed"] = User, ["without the name 'User'"] = { User = User },
      ["entry 1 is nil"] = { nil, User }, ["entry 2 is nil"] = { User, nil, User },
    } do
      local faults = table.concat(config.read({ mysql = "mysql://u@h/d", entities = given }).faults, "\n")
      assert.matches(text, faults)
    end
  end)

  it("finds passwords in files and in the environment", function()
    local path = os.tmpname()
    local file = must(io.open(path, "w"))
    file:write "s3cret\r\n"
    file:close()
    local c = read { mysql = "mysql://u@h/d?password_file=" .. path }
    os.remove(path)
    assert.equal("s3cret", c.mysql[1].password)
    assert.equal(os.getenv "HOME", read({ mysql = "mysql://u@h/d?password_env=HOME" }).mysql[1].password)
    assert.matches("has no 'REGOLITH_NOT_SET'",
      table.concat(read({ mysql = "mysql://u@h/d?password_env=REGOLITH_NOT_SET" }).faults))
    assert.matches("password file cannot be read",
      table.concat(read({ mysql = "mysql://u@h/d?password_file=/nowhere/at/all" }).faults))
    assert.matches("password file cannot be read: /usr: Is a directory",
      table.concat(read({ mysql = "mysql://u@h/d?password_file=/usr" }).faults))
  end)

  it("takes replicas, which are as their primary in what they do not say", function()
    local c = read { mysql = {
      url = "mysql://app:pw@primary/shop?pool=3&tls=encrypt", max_replica_lag_ms = 500,
      replicas = { east = "mysql://east:3307", west = { host = "west", user = "reader", pool = 9 } },
    } }
    assert.same({}, c.faults)
    local east, west = c.mysql[1].replicas[1], c.mysql[1].replicas[2]
    assert.same({ name = "default/east", host = "east", port = 3307, user = "app", password = "pw", db = "shop",
      pool = 3, tls = "encrypt" }, east)
    assert.same({ name = "default/west", host = "west", user = "reader", db = "shop", pool = 9, tls = "encrypt" }, west)
    assert.equal(500, c.mysql[1].max_replica_lag_ms)
    local bad = read { mysql = { url = "mysql://u@h/d", replicas = { ["a-b"] = "mysql://x", c = 5,
      d = { url = "mysql://y", replicas = {} } }, max_replica_lag_ms = 0 },
      redis = { url = "redis://r", replicas = {} } }
    local faults = table.concat(bad.faults, "\n")
    assert.matches("mysql replica 'default/c': must be a URL or a table", faults)
    assert.matches("replica 'default/a%-b': its name must be letters", faults)
    assert.matches("mysql replica 'default/d': unknown option 'replicas'", faults)
    assert.matches("redis pool 'default': unknown option 'replicas'", faults)
    assert.matches("'max_replica_lag_ms' must be at least 1",
      table.concat(read({ mysql = { url = "mysql://u@h/d", max_replica_lag_ms = 0 } }).faults))
  end)

  it("reads Lua and JSON files; code goes before the file", function()
    local base = os.tmpname()
    local function with(suffix, text)
      local file = must(io.open(base .. suffix, "w"))
      file:write(text)
      file:close()
      local c = config.read(base .. suffix, { entities = { User }, prefix = "code" })
      os.remove(base .. suffix)
      return c
    end
    local lua = with(".lua", "return { mysql = 'mysql://u@h/d', prefix = 'file', timeout_ms = 5 }")
    assert.same({}, lua.faults)
    assert.equal("code", lua.prefix)
    assert.equal(5, lua.timeout_ms)
    local json = with(".json", '{ "mysql": { "default": "mysql://u@h/d" }, "process_cache_mb": 8 }')
    assert.same({}, json.faults)
    assert.equal(8, json.process_cache_mb)
    assert.matches("at byte", table.concat(with(".json", "{").faults))
    assert.matches("must return a table", table.concat(with(".lua", "return 5").faults))
    assert.matches("No such file", table.concat(config.read("/nowhere.lua", { entities = { User } }).faults))
    os.remove(base)
  end)
end)

describe("config:environment", function()
  local ffi = require "ffi"
  ffi.cdef "int setenv(const char *name, const char *value, int overwrite); int unsetenv(const char *name);"
  local touched = {}

  local function set(name, value)
    touched[name] = touched[name] or { os.getenv(name) }
    ffi.C.setenv(name, value, 1)
  end

  after_each(function()
    for name, was in pairs(touched) do
      if was[1] then ffi.C.setenv(name, was[1], 1) else ffi.C.unsetenv(name) end
    end
    touched = {}
  end)

  it("fills in what code does not say, pools that entities name too", function()
    local Log = regolith.entity("log", { regolith.field.bool "a", mysql = "logs" })
    set("REGOLITH_MYSQL_URL", "mysql://u@h/d")
    set("REGOLITH_MYSQL_LOGS_URL", "mysql://u@h/logs")
    set("REGOLITH_REDIS_URL", "redis://r")
    set("REGOLITH_MYSQL_PASSWORD", "pw")
    local c = read { entities = { User, Log } }
    assert.same({}, c.faults)
    assert.same({ "d", "logs" }, { c.mysql[1].db, c.mysql[2].db })
    assert.equal("pw", c.mysql[1].password)
    assert.equal("r", c.redis[1].host)
    assert.equal("other", read({ mysql = "mysql://u@other/d" }).mysql[1].host)
    set("REGOLITH_MYSQL_REPLICAS", "mysql://east mysql://west:3307")
    local replicas = read({}).mysql[1].replicas
    assert.same({ "east", "west" }, { replicas[1].host, replicas[2].host })
    assert.equal("pw", replicas[2].password)
  end)
end)

describe("regolith.open", function()
  it("raises for an argument of the wrong kind", function()
    assert.matches("takes a table, or the path", select(2, pcall(regolith.open, 5)))
    for _, given in ipairs { { "/nowhere.lua", 5 }, { { entities = {} }, { prefix = "x" } } } do
      local ok, message = pcall(function() local _ = regolith.open(given[1], given[2]) end)
      assert.is_false(ok)
      assert.matches("config_spec.lua:%d+: regolith.open takes, after the path", message)
    end
  end)

  it("never shows a password", function()
    local orm, err = regolith.open {
      mysql = "mysql://u:topsecret@h:99999/d", redis = "redis://:topsecret@h/x", entities = { User },
    }
    assert.is_nil(orm)
    assert.is_nil(tostring(err):find("topsecret", 1, true))
  end)
end)
