-- SPDX-License-Identifier: MIT
-- The auditor finds what was seeded, and nothing else while everything is being written.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field
local root = os.getenv "REGOLITH_ROOT" or "."

local Part = regolith.entity("part", {
  field.string "name" { unique = true }, field.uint32 "n", field.uint32 "bin" { index = true, cached = true },
  cache = { process = true, redis = true, ttl_s = 600 },
})

describe("the auditor", function()
  local world, orm, db, parts
  local redis, prefix

  setup(function()
    world = support.world()
    orm = world:open { Part }
    redis = faults.redis()
    prefix = "{" .. world.name .. "}:"
    db = orm:session()
    parts = {}
    for i = 1, 40 do parts[i] = db:new(Part, { name = "p" .. i, n = i, bin = i % 4 }) end
    must(db:flush())
  end)
  teardown(function()
    db:close()
    redis:close()
    world:close()
  end)

  --- Reads all by all ways, until Redis has answered each of them.
  local function warm()
    local bypassed = support.bypasses(orm)
    local reader = orm:session()
    for i, part in ipairs(parts) do
      must(reader:get(Part, part.id))
      must(reader:by(Part, "name", "p" .. i))
    end
    for bin = 0, 3 do must(reader:all_by(Part, "bin", bin)) end
    reader:close()
    return support.bypasses(orm) == bypassed or warm()
  end

  local function audit(opts)
    opts = opts or {}
    opts.older_than_ms = opts.older_than_ms or 200
    return must(orm:audit(opts))
  end

  --- Nothing differs for longer than the news of a change take to come.
  local function agree()
    local result = audit { all = true, older_than_ms = 3000 }
    assert.same({}, result.mismatches)
    return result
  end

  it("finds nothing in caches that are right", function()
    warm()
    local result = agree()
    assert.equal(40, result.rows)
    assert.is_true(result.compared >= 40 * 3)
    assert.is_true(audit({ sample = 10 }).rows > 0)
  end)

  it("finds each row that was changed past the caches, in each tier", function()
    warm()
    must(db:execute("UPDATE part SET n = n + 100 WHERE id <= ?", parts[10].id))
    must(db:execute("DELETE FROM part WHERE id = ?", parts[40].id))
    faults.await("a row that differs in the process", function() -- which is empty when its channel was late
      local found, reader = {}, orm:session()
      reader:get(Part, parts[1].id)
      reader:close()
      for _, m in ipairs(audit({ all = true }).mismatches) do
        assert.equal("part", m.entity)
        found[m.tier] = (found[m.tier] or 0) + 1
        assert.matches(m.id == parts[40].id and "no such row" or "^differs in n$", m.problem)
      end
      assert.equal(11, found.redis)
      return (found.process or 0) > 0
    end)
    must(orm:invalidate(Part))
    must(db:execute("INSERT INTO part (id, name, n, bin) VALUES (?, 'p40', 40, 0)", parts[40].id))
    must(orm:invalidate(Part))
    warm()
    agree()
  end)

  it("finds lists that lack a row, and absences of what is there", function()
    warm()
    must(db:execute("UPDATE part SET bin = 9, name = 'moved' WHERE id = ?", parts[1].id))
    local reader = orm:session()
    faults.await("the list in Redis", function()
      assert.same({}, must(reader:all_by(Part, "bin", 7)))
      return support.count(orm, function() reader:all_by(Part, "bin", 7) end).mysql == 0
    end)
    must(db:execute("UPDATE part SET bin = 7 WHERE id = ?", parts[2].id))
    local what = {}
    for _, m in ipairs(audit({ all = true }).mismatches) do what[m.what .. " " .. m.problem] = true end
    assert.is_true(what["bin the list lacks the row"])
    local epoch = redis:call("GET", prefix .. "ep")
    redis:call("SET", prefix .. "e:part:" .. parts[3].id, "N" .. epoch)
    what = {}
    for _, m in ipairs(audit({ all = true }).mismatches) do what[m.what .. " " .. m.problem] = true end
    assert.is_true(what["row cached as absent"])
    must(db:execute("UPDATE part SET bin = 1, name = 'p1' WHERE id = ?", parts[1].id))
    must(db:execute("UPDATE part SET bin = 2 WHERE id = ?", parts[2].id))
    must(orm:invalidate(Part))
    reader:close()
  end)

  it("has no false alarms while rows are written, in any way", function()
    local config = world:config({}, {})
    local writers = {}
    for i = 1, 2 do
      writers[i] = faults.spawn("scribbler", { REGOLITH_MYSQL_URL = config.mysql, REGOLITH_REDIS_URL = config.redis,
        REGOLITH_PREFIX = config.prefix }, 3, parts[1].id, parts[40].id, i)
    end
    local rows, reader = 0, orm:session()
    while writers[1]:running() or writers[2]:running() do
      for _ = 1, 20 do reader:get(Part, parts[math.random(40)].id) end
      reader:clear()
      rows = rows + agree().rows
    end
    for _, writer in ipairs(writers) do
      local ok, text = writer:wait()
      assert.is_true(ok, text)
    end
    support.drain(orm)
    agree()
    assert.is_true(rows >= 40)
    reader:close()
  end)

  it("says so on the command line, by its exit code", function()
    local path = os.tmpname()
    faults.write_file(path, string.format([[
      local regolith = require "regolith"
      local field = regolith.field
      return { mysql = %q, redis = %q, prefix = %q, entities = { regolith.entity("part", {
        field.string "name" { unique = true }, field.uint32 "n", field.uint32 "bin" { index = true, cached = true },
        cache = { process = true, redis = true, ttl_s = 600 },
      }) } }
    ]], world.mysql_url(world.name), world.redis_url(), world.name))
    local function run(words)
      local command = string.format("'%s/bin/regolith' audit %s %s; echo \"exit $?\"", root, path, words)
      local text = support.shell(command, true)
      local out, code = text:match "^(.-)exit (%d+)\n$"
      return out, tonumber(code)
    end
    warm()
    local out, code = run "--all"
    assert.equal(0, code, out)
    assert.matches("40 rows, %d+ answers of caches compared, 0 differ", out)
    must(db:execute("UPDATE part SET n = n + 1 WHERE id = ?", parts[5].id))
    out, code = run "part --all --older-than 100"
    assert.equal(1, code, out)
    assert.matches("part +" .. parts[5].id .. " +redis +row +differs in n", out)
    out, code = run "prat"
    assert.equal(1, code)
    assert.matches("did you mean 'part'", out)
    must(orm:invalidate(Part))
    os.remove(path)
  end)

  it("raises on misuse", function()
    assert.has_error(function() orm:audit { smaple = 1 } end)
    assert.has_error(function() orm:audit { entity = "prat" } end)
  end)
end)
