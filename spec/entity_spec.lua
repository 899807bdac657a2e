-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local must = require("support.init").must

local entity, field = regolith.entity, regolith.field

local function faults_of(args) return table.concat(entity("user", args).faults, "\n") end

describe("entity", function()
  it("takes fields, indexes, cache, hooks and methods", function()
    local User = entity("user", {
      field.string "email" { length = 190, unique = true },
      field.ref "team" { "team" },
      field.uint32 "visits" { index = true, cached = true },
      unique = { both = { "email", "team" } },
      index = { by_team = { "team_id", "visits", cached = true } },
      cache = { process = true, redis = true, ttl_s = 60, all = true },
      hooks = { validate = function() end },
      methods = { greet = function() end },
    })
    assert.same({}, User.faults)
    assert.equal("entity user", tostring(User))
    local names = {}
    for i, index in ipairs(User.indexes) do names[i] = index.name end
    assert.same({ "email", "visits", "both", "by_team", "all" }, names)
    assert.same({ "team", "visits" }, User.by_index.by_team.paths)
    assert.is_true(User.by_index.both.unique)
    assert.is_true(User.by_index.visits.cached)
    assert.is_true(User.by_index.all.virtual)
  end)

  it("raises at the caller for misuse of itself", function()
    assert.matches("entity_spec.lua:%d+: regolith.entity takes a name", select(2, pcall(function() entity {} end)))
    assert.matches("takes a table of fields", select(2, pcall(function() entity "user" end)))
  end)

  it("collects every fault, naming entity and field", function()
    local faults = faults_of {
      field.string "email" { lenght = 5 },
      field.enum "state",
      "not a field",
      unique = { email = { "emial" } },
      cache = { procces = true },
      hooks = { before_inset = print },
      idx = 5,
    }
    assert.matches("user.email: unknown option 'lenght'", faults)
    assert.matches("user.state: has no values", faults)
    assert.matches("user: entry 3 is not a field", faults)
    assert.matches("user.index email: there is no field 'emial' %(did you mean 'email'%?%)", faults)
    assert.matches("user.cache: unknown option 'procces' %(did you mean 'process'%?%)", faults)
    assert.matches("user.hooks: unknown option 'before_inset' %(did you mean 'before_insert'%?%)", faults)
    assert.matches("user: unknown option 'idx'", faults)
  end)

  it("refuses names that collide", function()
    assert.matches("user.id: the name is taken", faults_of { field.uint64 "id" })
    assert.matches("user.id: the name is taken", faults_of { field.ref "id" { "x" } })
    assert.matches("user.a: is there twice", faults_of { field.bool "a", field.bool "a" })
    assert.matches("'team_id' and 'team' would both be kept as 'team_id'",
      faults_of { field.uint64 "team_id", field.ref "team" { "team" } })
    assert.matches("user.team: is there twice", faults_of { field.string "team", field.ref "team" { "team" } })
    assert.matches("its SQL column 'A_b' is that of 'a.b'",
      faults_of { field.struct "a" { field.bool "b" }, field.bool "A_b" })
    assert.matches("'greet' is a field already",
      faults_of { field.bool "greet", methods = { greet = function() end } })
    assert.matches("index all: is there twice",
      faults_of { field.bool "a", index = { all = { "a" } }, cache = { all = true } })
  end)

  it("refuses wrong kinds of options", function()
    assert.matches("option 'ids' must be 'block'", faults_of { field.bool "a", ids = "uuid" })
    assert.matches("option 'mysql' must be letters", faults_of { field.bool "a", mysql = "my pool" })
    assert.matches("hooks: option 'validate' must be a function",
      faults_of { field.bool "a", hooks = { validate = 5 } })
    assert.matches("methods: 'x' must be a function", faults_of { field.bool "a", methods = { x = 5 } })
    assert.matches("index i: has no fields", faults_of { field.bool "a", index = { i = {} } })
    assert.matches("index i: field 'a' is there twice", faults_of { field.bool "a", index = { i = { "a", "a" } } })
    assert.matches("its name must be letters", table.concat(entity("my user", { field.bool "a" }).faults))
  end)
end)

describe("regolith.open", function()
  local function open(list, more)
    local config = { mysql = "mysql+unix:///nowhere.sock?user=u&db=d", entities = list, lazy = true }
    for name, v in pairs(more or {}) do config[name] = v end
    return regolith.open(config)
  end

  it("reports the faults of all entities and of the configuration at once", function()
    local orm, err = open({
      entity("user", { field.string "email" { lenght = 5 } }),
      entity("team", { field.enum "state" }),
      entity("team", { field.bool "a" }),
      "no entity",
    }, { redis = "http://x", prefixx = 1 })
    assert.is_nil(orm)
    assert.equal("CONFIG", err.code)
    for _, text in ipairs {
      "user.email: unknown option 'lenght'", "team.state: has no values", "team: two entities have this name",
      "entry 4 is not an entity", "redis pool 'default': must be a URL", "unknown option 'prefixx'",
    } do
      assert.is_truthy(err.message:find(text, 1, true), text .. " is missing in " .. err.message)
    end
  end)

  it("reports what the engine finds of the same entities with it", function()
    local orm, err = open {
      entity("user", {
        field.string "email" { lenght = 5 }, field.string "name" { length = 70000 }, field.ref "team" { "tem" },
        field.int8 "n" { default = 300 }, field.enum "state" { "new", default = "nwe" },
      }),
      entity("team", {
        field.int8 "n" { default = 300 }, field.date "d" { default = "2020-13-01" },
        field.decimal "credit" { precision = 5, scale = 9 }, field.json "tags" { index = true },
      }),
      entity("note", {
        field.int8 "a" { default = 300 }, field.int8 "b" { default = -300 }, field.refs "users" { "usr" },
      }),
    }
    assert.is_nil(orm)
    for _, text in ipairs {
      "user.email: unknown option 'lenght'", "user.name: length 70000 exceeds", "default of user.n: value 300",
      "default of user.state: invalid value: nwe",
      'user.team: refers to entity "tem", which is not registered (did you mean \'team\'?)',
      "default of team.n: value 300", "default of team.d: invalid date", "team.credit: scale 9 exceeds precision 5",
      "team.tags: index \"tags\": a json cannot be indexed",
      "default of note.a: value 300", "default of note.b: value -300",
      'note.users: refers to entity "usr", which is not registered (did you mean \'user\'?)',
    } do
      assert.is_truthy(err.message:find(text, 1, true), text .. " is missing in " .. err.message)
    end
    assert.equal(12, #err.faults, err.message)
  end)

  it("reports a reference to an entity that is not there", function()
    local orm, err = open { entity("user", { field.ref "team" { "team" } }) }
    assert.is_nil(orm)
    assert.equal("CONFIG", err.code)
    assert.matches("team", err.message)
  end)

  it("reports pools that entities name and nobody defines", function()
    local orm, err = open { entity("user", { field.bool "a", mysql = "logs" }) }
    assert.is_nil(orm)
    assert.matches("logs", err.message)
  end)

  it("connects at once, unless it is lazy", function()
    local User = entity("user", { field.bool "a" })
    local orm, err = open({ User }, { lazy = false })
    assert.is_nil(orm)
    assert.equal("UNAVAILABLE", err.code)
    assert.matches("default", err.message)
    must(open { User }):close()
  end)

  it("takes one definition for several orms", function()
    local User = entity("user", { field.bool "a" })
    local one, two = must(open { User }), must(open { User })
    one:close()
    two:close()
    assert.matches("the orm is closed", select(2, pcall(function() return one:session() end)))
  end)
end)
