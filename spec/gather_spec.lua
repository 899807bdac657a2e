-- SPDX-License-Identifier: MIT
-- Reads that go together: references of the members of one list, and operations that wait for a worker.

local native = require "regolith.native"
local regolith = require "regolith"
local support = require "support.init"

local C, ffi, err = native.C, native.ffi, native.err
local field, must = regolith.field, support.must

local Land = regolith.entity("land", { field.string "name" { length = 20 } })
local City = regolith.entity("city", {
  field.string "name" { length = 20, unique = true }, field.ref "land" { Land }, field.ref "mayor" { "person" },
})
local Person = regolith.entity("person", { field.string "name" { length = 20 }, field.ref "home" { City } })

describe("reads together:", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { Land, City, Person }
    local all = orm:session()
    for i = 1, 20 do
      local land = must(all:new(Land, { name = "l" .. i }))
      local city = must(all:new(City, { name = "c" .. i, land = land }))
      must(all:new(Person, { name = "p" .. i, home = city }))
      if i == 20 then must(all:new(Person, { name = "homeless" })) end
    end
    must(all:flush())
    all:close()
  end)
  teardown(function() world:close() end)
  before_each(function() db = orm:session() end)
  after_each(function() db:close() end)

  describe("a reference", function()
    it("of one member of a list is loaded for all", function()
      local people = must(db:search(Person, "1 = 1 ORDER BY id"):all())
      local counts = support.count(orm, function()
        for i, person in ipairs(people) do
          assert.equal(i <= 20 and "c" .. i or nil, person.home and person.home.name)
        end
      end)
      assert.equal(1, counts.mysql)
      counts = support.count(orm, function()
        for i = 1, 20 do assert.equal("l" .. i, people[i].home.land.name) end
      end)
      assert.equal(1, counts.mysql)
    end)

    it("is loaded for lists by ids and by index as well", function()
      local first = must(db:all(Person))
      local ids = {}
      for i, person in ipairs(first) do ids[i] = person.id end
      db:clear()
      local some = must(db:get_many(Person, ids))
      local counts = support.count(orm, function() for i = 1, 20 do assert.truthy(some[i].home) end end)
      assert.equal(1, counts.mysql)
    end)

    it("of an entity by itself is loaded alone", function()
      local person = must(db:search(Person, "name = 'p7'"):one())
      local counts = support.count(orm, function() assert.equal("c7", person.home.name) end)
      assert.equal(1, counts.mysql)
      assert.matches("IN %(%?%)", (counts.texts[1]:gsub("=%?", " IN (?)")))
    end)

    it("that cannot be read of another member is not this one's fault", function()
      local people = must(db:search(Person, "1 = 1 ORDER BY id"):all())
      rawset(people[3], "home_id", "nonsense")
      rawset(people[4], "home_id", 999999999)
      assert.equal("c1", people[1].home.name)
      assert.is_nil(people[4].home)
      db:discard(people[3])
      db:discard(people[4])
    end)
  end)

  describe("operations", function()
    local POLLIN = 1
    ffi.cdef "typedef struct { int fd; short events, revents; } rgspec_pollfd;"

    --- Runs them on the one worker of an engine; those that come while it is busy wait.
    local function run(busy, make, n)
      local one = world:open({ Land, City, Person }, { schema = false, workers = 1 })
      local engine = one._engine
      local notifier = ffi.gc(C.rg_notifier_new(engine, 0, err), C.rg_notifier_free)
      local ops, fd, tags, done = {}, ffi.new "rgspec_pollfd[1]", ffi.new "uint32_t[64]", 0
      must(one:connect())
      local before = one:counter "regolith_mysql_queries_total"
      ops[0] = ffi.gc(busy(engine), C.rg_op_free)
      must(C.rg_op_submit(ops[0], notifier, 1000, 20000, err) == 0)
      for i = 1, n do
        ops[i] = ffi.gc(make(engine, i), C.rg_op_free)
        must(C.rg_op_submit(ops[i], notifier, i, 20000, err) == 0)
      end
      fd[0].fd, fd[0].events = C.rg_notifier_fd(notifier), POLLIN
      while done < n + 1 do
        ffi.C.poll(fd, 1, 1000)
        repeat
          local some = C.rg_notifier_drain(notifier, tags, 64)
          done = done + some
        until some == 0
      end
      for i = 1, n do assert.equal(0, C.rg_op_code(ops[i])) end
      return one, ops, one:counter "regolith_mysql_queries_total" - before, notifier
    end

    local function sleep(engine)
      local text = "SELECT SLEEP(1)"
      return C.rg_op_query(engine, "default", text, #text, err)
    end

    local function finish(one, ops, notifier)
      for _, op in pairs(ops) do C.rg_op_free(ffi.gc(op, nil)) end
      C.rg_notifier_free(ffi.gc(notifier, nil))
      world:shut(one)
    end

    it("by id that wait together are one statement, each with its rows", function()
      local list = must(db:all(Person))
      local T = orm._types[Person]
      local one, ops, queries, notifier = run(sleep, function(engine, i)
        local op = C.rg_op_get(engine, T.number, 0, err)
        C.rg_op_add_id(op, list[i].id, err)
        C.rg_op_add_id(op, list[1].id, err)
        C.rg_op_add_id(op, 999999999, err)
        return op
      end, 20)
      -- the sleep, and one for all; on a busy machine some are on their way before the last has come
      assert.is_true(queries <= 7, queries)
      local session, view = ffi.gc(C.rg_session_new(one._engine, err), C.rg_session_free), ffi.new "rg_view"
      for i = 1, 20 do
        assert.equal(3, C.rg_op_rows(ops[i]))
        for k, name in ipairs { list[i].name, list[1].name } do
          assert.equal(C.RG_GET_HIT, C.rg_op_row(ops[i], k - 1, session, view))
          assert.equal(name, one._types[Person].decode(view.data).name)
        end
        assert.equal(C.RG_GET_ABSENT, C.rg_op_row(ops[i], 2, session, view))
      end
      C.rg_session_free(ffi.gc(session, nil))
      finish(one, ops, notifier)
    end)

    it("that look the same thing up are one", function()
      local T = orm._types[City]
      local one, ops, queries, notifier = run(sleep, function(engine, i)
        local name = i % 2 == 0 and "c5" or "c6"
        C.rg_builder_reset(T.builder)
        C.rg_builder_string(T.builder, 1, name, #name, err)
        return C.rg_op_lookup(engine, T.number, 0, T.builder, err)
      end, 10)
      assert.is_true(queries <= 7, queries) -- the sleep among them; one by one they would be more than ten
      for i = 1, 10 do assert.equal(1, C.rg_op_rows(ops[i])) end
      finish(one, ops, notifier)
    end)
  end)
end)
