-- SPDX-License-Identifier: MIT
-- Our sides of the writes: flushes of FLUSH rows. Making the entities and assigning their fields is
-- timed with the flush, as making the statement's text is on the raw side; making up the values is not:
-- an application has them.

local clock = require "clock"
local model = require "model"

local M = {}

local function inserts(cache)
  return function(seconds)
    local User = model.entity("bench_new", cache)
    local orm = model.open { User }
    local i = 0
    clock.measure(seconds, function()
      local apart, rows = clock.now(), {}
      for k = 1, model.FLUSH do
        i = i + 1
        rows[k] = model.row(i)
      end
      apart = clock.now() - apart
      local db = orm:session()
      for k = 1, model.FLUSH do assert(db:new(User, rows[k])) end
      assert(db:flush())
      db:close()
      return model.FLUSH, apart
    end)
    orm:close()
  end
end

M.insert = inserts(false)
M.insert_cached = inserts { redis = true, process = true }

--- Windows of FLUSH rows; loading them is not timed, changing two columns and flushing is.
local function updates(cache)
  return function(seconds)
    local User = model.entity("bench_changed", cache)
    local orm = model.open { User }
    local window, windows, ids = 0, model.ROWS / model.FLUSH, {}
    clock.measure(seconds, function()
      local apart = clock.now()
      local first, turn = (window % windows) * model.FLUSH, math.floor(window / windows) + 1
      for i = 1, model.FLUSH do ids[i] = first + i end
      local db = orm:session()
      local users = assert(db:get_many(User, ids))
      apart = clock.now() - apart
      for i = 1, model.FLUSH do
        local user = users[i]
        user.visits = user.visits + 1
        user.city = model.city(user.id + turn)
      end
      local _, changed = assert(db:flush())
      assert(changed == model.FLUSH)
      db:close()
      window = window + 1
      return model.FLUSH, apart
    end)
    orm:close()
  end
end

M.update = updates(false)
M.update_cached = updates { redis = true, process = true }

return M
