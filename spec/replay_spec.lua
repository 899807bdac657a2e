-- SPDX-License-Identifier: MIT
local faults = require "support.faults"
local shared = require "support.programs.shared"
local support = require "support.init"

local must = support.must
local Line = shared.Line

describe("a queue whose applied entries are kept", function()
  local world, orm, db, redis, stream

  setup(function()
    world = support.world()
    orm = world:open({ Line }, { queues = { default = { retain_s = 3600 } } })
    redis = faults.redis()
    stream = must(orm:queues())[1].stream
  end)
  teardown(function()
    redis:close()
    world:close()
  end)
  before_each(function() db = orm:session() end)
  after_each(function()
    db:close()
    support.drain(orm)
    must(orm:drop "all")
    local admin = orm:session()
    must(admin:execute "DELETE FROM line")
    must(orm:invalidate(Line))
    admin:close()
  end)

  --- Queues and applies n writes of one row: its numbers rise.
  local function write(e, n)
    for _ = 1, n do
      e.n = e.n + 1
      must(db:flush_async())
    end
    support.drain(orm)
  end

  local function ledger()
    return must(db:query "SELECT id_ms, id_seq FROM _regolith_ledger WHERE queue = 'default'")[1]
  end
  local function row() return must(db:query "SELECT n, version FROM line WHERE id = 1")[1] end

  --- As a restored backup does: rows and ledger as they were.
  local function restore(to, rows)
    must(db:execute("UPDATE _regolith_ledger SET id_ms = ?, id_seq = ? WHERE queue = 'default'", to.id_ms, to.id_seq))
    must(db:execute("UPDATE line SET n = ?, version = ? WHERE id = 1", rows.n, rows.version))
    must(orm:invalidate(Line))
  end

  it("has them out of the way, for a while", function()
    local e = must(db:new(Line, { id = 1, n = 0 }))
    must(db:flush_async())
    write(e, 3)
    assert.equal(0, redis:call("XLEN", stream))
    assert.equal(0, must(orm:queues())[1].length)
    assert.equal(4, redis:call("XLEN", stream .. ":applied"))
  end)

  it("applies them again, once and in order, when the database and its ledger went back", function()
    local e = must(db:new(Line, { id = 1, n = 0 }))
    must(db:flush_async())
    write(e, 2)
    local at, then_ = ledger(), row()
    write(e, 5)
    local now = row()
    assert.equal(7, now.n)
    local running = must(orm:consumer()) -- one that knows nothing of it
    must(running:step(0))
    restore(at, then_)
    assert.equal(2, orm:session():get(Line, 1).n) -- cached as it is
    must(db:new(Line, { id = 2, n = 1 })) -- what is queued meanwhile comes behind
    must(db:flush_async())
    faults.await("all of it", function()
      must(running:step(0.05))
      return #must(db:query "SELECT id FROM line WHERE id = 2") == 1
    end)
    assert.same(now, row())
    assert.equal(7, orm:session():get(Line, 1).n)
    assert.same({}, must(orm:dead_letters()))
    running:close()
  end)

  it("may be sent back by hand, to a time or an entry", function()
    local e = must(db:new(Line, { id = 1, n = 0 }))
    must(db:flush_async())
    write(e, 1)
    local then_ = row()
    e.n = 50
    must(db:flush_async())
    local id = db:stream_id()
    support.drain(orm)
    write(e, 1)
    must(db:execute("UPDATE line SET n = ?, version = ? WHERE id = 1", then_.n, then_.version)) -- without its ledger
    must(orm:invalidate(Line))
    assert.equal(1, must(orm:replay(id)))
    support.drain(orm)
    assert.same({ 51, 4 }, { row().n, row().version })
    assert.equal(51, orm:session():get(Line, 1).n)
    assert.equal(0, must(orm:replay(os.time() + 60))) -- nothing is to be done again
    assert.matches("replay takes", select(2, pcall(orm.replay, orm, "yesterday")))
  end)

  it("says GAP when what is asked for is not kept any more", function()
    local e = must(db:new(Line, { id = 1, n = 0 }))
    must(db:flush_async())
    write(e, 1)
    local at, then_ = ledger(), row()
    local short = world:open({ Line }, { queues = { default = { retain_s = 1 } } })
    faults.pause(1100)
    e.n = 9
    must(db:flush_async())
    support.drain(short) -- lets go of all but the last
    assert.equal(1, redis:call("XLEN", stream .. ":applied"))
    local _, err = orm:replay(1)
    assert.equal("GAP", err.code)
    restore({ id_ms = at.id_ms - 5000, id_seq = 0 }, then_)
    local consumer = must(orm:consumer { on_error = "stop" })
    local n
    n, err = consumer:step(0.01)
    assert.is_nil(n)
    assert.equal("GAP", err.code)
    consumer:close()
    must(orm:accept_gap())
    support.drain(orm)
    world:shut(short)
  end)
end)
