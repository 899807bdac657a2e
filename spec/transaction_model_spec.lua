-- SPDX-License-Identifier: MIT
-- Random trees of scopes with random failures, held against a model: what each scope ends as, which
-- callbacks run and in which order, the rows in MySQL, and what another session is told by the caches,
-- between the steps and at the end. REGOLITH_LONG=1 runs thousands; REGOLITH_SEED one of them.

local Model = require "support.scope_model"
local regolith = require "regolith"
local support = require "support.init"

local field, must = regolith.field, support.must

local Item = regolith.entity("item", {
  field.int32 "n",
  field.uint8 "k",
  ids = "application",
  index = { by_k = { "k", cached = true } },
  cache = { process = true, redis = true },
})

local MODES = { "REQUIRED", "REQUIRED", "REQUIRED", "NESTED", "NESTED", "REQUIRES_NEW", "NOT_SUPPORTED", "SUPPORTS",
  "MANDATORY", "NEVER" }
local GROUPS, DEPTH = 3, 4

--- Numbers from 1 to n, the same for a seed on every machine.
local function dice(seed)
  local state = seed * 2654435761 % 4294967296
  return function(n)
    state = (state * 1664525 + 1013904223) % 4294967296
    return math.floor(state / 65536) % n + 1
  end
end

describe("random scopes", function()
  local world, orm, watcher

  setup(function()
    world = support.world()
    orm = world:open { Item }
    watcher = orm:session()
  end)
  teardown(function()
    watcher:close()
    world:close()
  end)

  --- One run: the session, the model, and what has happened to them.
  local function new_run(seed)
    return {
      db = orm:session(), model = Model.new(), roll = dice(seed), events = {}, last_id = 0, last_n = 0, names = 0,
    }
  end

  local function new_name(run)
    run.names = run.names + 1
    return "cb" .. run.names
  end

  local function new_values(run)
    run.last_n = run.last_n + 1
    return { n = run.last_n, k = run.roll(GROUPS) }
  end

  local function flush(run)
    must(run.db:flush())
    run.model:flush()
  end

  --- Writes outside of transactions are flushed at once, as the model has them; others some time.
  local function maybe_flush(run)
    if not run.model:tx() or #run.model.scope.suspended > 0 or run.roll(10) <= 6 then flush(run) end
  end

  --- A change of a row; refused at once where a suspended transaction has it.
  local function change(run, id, entity, apply, row)
    if run.model:is_locked(id) then
      flush(run)
      apply(entity)
      local ok, e = run.db:flush()
      assert.is_nil(ok)
      assert.equal("SELF_DEADLOCK", e.code)
      run.db:discard(entity)
      return
    end
    apply(entity)
    run.model:write(id, row)
    maybe_flush(run)
  end

  local ACTS = {}

  function ACTS.insert(run)
    run.last_id = run.last_id + 1
    local values = new_values(run)
    must(run.db:new(Item, { id = run.last_id, n = values.n, k = values.k }))
    run.model:write(run.last_id, values)
    maybe_flush(run)
  end

  local function pick(run)
    local ids = run.model:ids()
    local id = ids[#ids > 0 and run.roll(#ids) or 1]
    return id, id and must(run.db:get(Item, id), "row " .. tostring(id) .. " is not found")
  end

  function ACTS.update(run)
    local id, e = pick(run)
    if not id then return end
    local values = new_values(run)
    change(run, id, e, function() e.n, e.k = values.n, values.k end, values)
  end

  function ACTS.delete(run)
    local id, e = pick(run)
    if id then change(run, id, e, function() run.db:delete(e) end, nil) end
  end

  --- What the scope sees in MySQL.
  function ACTS.look(run)
    flush(run)
    local ids, rows = run.model:ids(), must(run.db:query "SELECT id, n, k FROM item ORDER BY id")
    assert.equal(#ids, #rows)
    for i, id in ipairs(ids) do
      assert.same({ id = id, n = run.model:row(id).n, k = run.model:row(id).k }, rows[i])
    end
  end

  local function check_group(session, rows, k)
    local expected = {}
    for id, row in pairs(rows) do
      if row.k == k then expected[#expected + 1] = id end
    end
    table.sort(expected)
    local got = {}
    for i, e in ipairs(must(session:all_by(Item, "by_k", k))) do got[i] = e.id end
    assert.same(expected, got)
  end

  --- What somebody else is told meanwhile: what is committed.
  function ACTS.watch(run)
    watcher:clear()
    for id = 1, run.last_id do
      local e, row = watcher:get(Item, id), run.model.committed[id]
      assert.equal(row and row.n, e and e.n, "row " .. id)
    end
    check_group(watcher, run.model.committed, run.roll(GROUPS))
  end

  function ACTS.commit(run)
    local name, effect, id, values = new_name(run), nil, nil, nil
    local kind = run.model:tx() and run.roll(4) or 4
    if kind == 1 then
      run.last_id = run.last_id + 1
      id, values = run.last_id, new_values(run)
      effect = function(model) model.committed[id] = values end
    end
    run.model:on_commit(name, effect)
    run.db:commit(function()
      run.events[#run.events + 1] = name
      if kind == 1 then
        run.db:transaction(function() must(run.db:new(Item, { id = id, n = values.n, k = values.k })) end)
      elseif kind == 2 then
        error "a callback that fails"
      end
    end)
  end

  function ACTS.compensate(run)
    local name = new_name(run)
    local expected = run.model:on_rollback(name)
    assert.equal(expected, run.db:compensate(function()
      run.events[#run.events + 1] = name
      if run.roll(4) == 1 then error "a callback that fails" end
    end))
  end

  local WEIGHTED = { "insert", "insert", "update", "update", "update", "delete", "look", "watch", "commit",
    "compensate", "compensate", "scope", "scope", "scope" }

  local run_scope

  local function act(run, depth)
    local what = WEIGHTED[run.roll(#WEIGHTED)]
    if what ~= "scope" then return ACTS[what](run) end
    if depth < DEPTH then run_scope(run, depth + 1) end
  end

  --- Why the scope around is to fail, too: what a scope within did, not swallowed.
  local function body(run, depth)
    for _ = 1, run.roll(5) do
      local cause = act(run, depth)
      if cause then return cause end
    end
    local fate = run.roll(10)
    if fate <= 2 then return { "raise" } end
    if fate == 3 then return { "return" } end
  end

  local function expect_refusal(run, opts, action)
    local ran = false
    local called, ok, e = pcall(run.db.transaction, run.db, opts, function() ran = true end)
    assert.is_false(ran)
    if action == "refuse" then
      assert.is_false(called)
      assert.equal("MISUSE", ok.code)
    else
      assert.is_true(called)
      assert.is_nil(ok)
      assert.equal("MISUSE", e.code)
    end
  end

  --- An identity map does not see what the same program did in a scope beside it: only the columns that
  --- differ from what was read would be written.
  local function read_anew(run)
    flush(run)
    for _, id in ipairs(run.model:ids()) do must(run.db:reload(must(run.db:get(Item, id)))) end
  end

  --- Runs one scope in both; what it failed with when that is to go on upwards.
  function run_scope(run, depth)
    local mode = MODES[run.roll(#MODES)]
    local opts = { propagation = mode, isolation = "READ_COMMITTED" }
    local action = run.model:action(mode)
    if action == "refuse" or action == "marked" then return expect_refusal(run, opts, action) end
    if action == "suspend" or action == "suspend_create" then flush(run) end
    run.model:enter(mode)
    local cause
    local called, first, second = pcall(run.db.transaction, run.db, opts, function()
      cause = body(run, depth)
      if not cause then return "fine" end
      if cause[1] == "raise" then error(cause, 0) end
      return nil, cause
    end)
    if not called and first ~= cause then error(first, 0) end
    local expected = run.model:exit(cause ~= nil)
    if expected == "unexpected" then
      assert.is_true(called)
      assert.is_nil(first)
      assert.equal("UNEXPECTED_ROLLBACK", second.code)
      assert.is_not_nil(second.cause)
    elseif cause then
      assert.equal(cause, called and second or first)
    else
      assert.equal("fine", first, tostring(second))
    end
    run.beside = run.beside or action == "suspend" or action == "suspend_create"
    if run.beside then read_anew(run) end
    if cause and run.roll(2) == 1 then return cause end
  end

  local function run_tree(seed)
    local run = new_run(seed)
    for _ = 1, 2 do ACTS.insert(run) end
    flush(run)
    for _ = 1, 2 + run.roll(3) do run_scope(run, 1) end
    assert.is_nil(rawget(run.db, "_scopes"))
    assert.same(run.model.events, run.events)
    for _ = 1, 2 do -- from the caches, and once more past them
      ACTS.watch(run)
      for k = 1, GROUPS do check_group(watcher, run.model.committed, k) end
      run.db:clear()
      ACTS.look(run)
      must(orm:invalidate(Item))
    end
    run.db:close()
  end

  local function no_leak()
    for _, pool in ipairs(must(orm:health())) do
      if pool.kind == "mysql" then assert.equal(0, pool.busy) end
    end
    support.no_transactions(world)
    assert.equal(0, orm:counter "regolith_leaked_handles_total")
  end

  local function run_seeds(first, last)
    for seed = first, last do
      local ok, fault = pcall(run_tree, seed)
      local text = type(fault) == "table" and fault.message or fault
      if not ok then error("seed " .. seed .. ": " .. tostring(text), 0) end
      watcher:clear()
      must(watcher:execute "DELETE FROM item")
      must(orm:invalidate(Item))
    end
    no_leak()
  end

  local only = tonumber(os.getenv "REGOLITH_SEED")
  local n = os.getenv "REGOLITH_LONG" and 3000 or 120

  it("do what the model does", function()
    run_seeds(only or 1, only or n)
  end)
end)
