-- SPDX-License-Identifier: MIT
-- Teams and users: the entities that most specs of sessions work on, with a fresh session for each
-- test and empty tables after it.
--
--   local people = require("support.people").prepare()     within describe
--   people.db, people.orm, people:user{}, people:fresh()

local regolith = require "regolith"
local support = require "support.init"

local field, must = regolith.field, support.must

local M = {}
M.__index = M

M.Team = regolith.entity("team", {
  field.string "name" { length = 80, required = true, unique = true },
})
M.User = regolith.entity("user", {
  field.string "email" { length = 190, required = true },
  field.ref "team" { M.Team },
  field.enum "state" { "new", "active", "banned" },
  field.uint32 "visits",
  field.json "tags" { nullable = true },
  field.decimal "credit" { precision = 12, scale = 2 },
  field.time "seen" { nullable = true },
  field.refs "friends" { "user" },
  field.struct "address" { field.string "city", field.string "zip" { nullable = true } },
  field.array "score" { of = field.uint32, n = 2 },
  unique = { email = { "email" }, place = { "team", "visits" } },
  index = { by_state = { "state" }, by_team = { "team" } },
  methods = { label = function(user) return user.email .. "!" end },
})

local function empty_tables(orm)
  local admin = orm:session()
  must(admin:execute "DELETE FROM `user`")
  must(admin:execute "DELETE FROM `team`")
  admin:close()
end

--- Flushes, and gives a session that knows nothing.
function M:fresh()
  must(self.db:flush())
  self.db:close()
  self.db = self.orm:session()
  return self.db
end

--- A new user with an address and visits of its own.
function M:user(values)
  self.n = self.n + 1
  values = values or {}
  values.email = values.email or ("user" .. self.n .. "@example.org")
  values.visits = values.visits or self.n
  return must(self.db:new(M.User, values))
end

--- A new team.
function M:team(name) return must(self.db:new(M.Team, { name = name })) end

--- Sets busted's hooks of the enclosing block up.
---@param busted { setup: function, teardown: function, before_each: function, after_each: function }
function M.prepare(busted)
  local self = setmetatable({ n = 0 }, M)
  busted.setup(function()
    self.world = support.world()
    self.orm = self.world:open { M.Team, M.User }
  end)
  busted.teardown(function() self.world:close() end)
  busted.before_each(function() self.db = self.orm:session() end)
  busted.after_each(function()
    if rawget(self.db, "_c") then self.db:close() end
    empty_tables(self.orm)
  end)
  return self
end

return M
