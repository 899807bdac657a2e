-- SPDX-License-Identifier: MIT
-- Makes the tables that both sides work on, all of them of the one entity.

local clock = require "clock"
local model = require "model"

local TABLES = { "bench_user", "bench_new", "bench_changed", "bench_raw", "bench_many" }

return {
  apply = function()
    local entities = {}
    for i, name in ipairs(TABLES) do entities[i] = model.entity(name, false) end
    local orm = model.open(entities)
    assert(orm:schema_apply())
    clock.answer(#TABLES, 1)
    orm:close()
  end,
}
