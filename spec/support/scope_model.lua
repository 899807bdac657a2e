-- SPDX-License-Identifier: MIT
-- What transactions ought to do, in the plainest words: rows by id in layers over what is committed, and
-- callbacks by name. The random trees of transaction_model_spec are held against it.

local Model = {}
Model.__index = Model

--- Propagation, written down once more: by mode, with a transaction and without.
local ACTIONS = {
  REQUIRED = { "join", "create" }, SUPPORTS = { "join", "none" }, MANDATORY = { "join", "refuse" },
  REQUIRES_NEW = { "suspend_create", "create" }, NOT_SUPPORTED = { "suspend", "none" },
  NEVER = { "refuse", "none" }, NESTED = { "savepoint", "create" },
}

local function new_layer() return { rows = {}, pending = {}, commits = {}, compensates = {}, marked = false } end

function Model.new() return setmetatable({ committed = {}, events = {}, scope = nil }, Model) end

local function top(tx) return tx.layers[#tx.layers] end

function Model:tx() return self.scope and self.scope.tx end

--- What entering a scope of that mode does; nothing is entered when it is "refuse" or "marked".
function Model:action(mode)
  local action = ACTIONS[mode][self:tx() and 1 or 2]
  if action == "savepoint" and top(self:tx()).marked then return "marked" end
  return action
end

function Model:enter(mode)
  local action, around = self:action(mode), self.scope
  local scope = { action = action, around = around, suspended = around and around.suspended or {} }
  if action == "join" then
    scope.tx = around.tx
  elseif action == "savepoint" then
    scope.tx = around.tx
    table.insert(scope.tx.layers, new_layer())
  elseif action == "create" or action == "suspend_create" then
    scope.tx = { layers = { new_layer() }, touched = {} }
  end
  if action == "suspend" or action == "suspend_create" then
    scope.suspended = { around.tx, unpack(scope.suspended) }
  end
  scope.layer = scope.tx and top(scope.tx)
  self.scope = scope
end

--- The row as the scope sees it, or nil.
function Model:row(id)
  local tx = self:tx()
  for i = tx and #tx.layers or 0, 1, -1 do
    local row = tx.layers[i].rows[id]
    if row ~= nil then return row or nil end
  end
  return self.committed[id]
end

--- Ids of all rows that the scope sees, ascending.
function Model:ids()
  local seen, list = {}, {}
  for id in pairs(self.committed) do seen[id] = true end
  local tx = self:tx()
  for i = 1, tx and #tx.layers or 0 do
    for id in pairs(tx.layers[i].rows) do seen[id] = true end
  end
  for id in pairs(seen) do
    if self:row(id) then list[#list + 1] = id end
  end
  table.sort(list)
  return list
end

--- Is the row locked by a transaction that waits for this one?
function Model:is_locked(id)
  for _, tx in ipairs(self.scope and self.scope.suspended or {}) do
    if tx.touched[id] then return true end
  end
  return false
end

--- row nil: deleted.
function Model:write(id, row)
  local tx = self:tx()
  if not tx then
    self.committed[id] = row
    return
  end
  top(tx).rows[id] = row or false
  top(tx).pending[id] = true
end

function Model:flush()
  local tx = self:tx()
  for i = 1, tx and #tx.layers or 0 do
    for id in pairs(tx.layers[i].pending) do tx.touched[id] = true end
    tx.layers[i].pending = {}
  end
end

--- effect: what the callback does to the committed rows, or nil.
function Model:on_commit(name, effect)
  local layer = self.scope and self.scope.layer
  if layer then
    table.insert(layer.commits, { name = name, effect = effect })
  else
    self:run { name = name, effect = effect }
  end
end

function Model:on_rollback(name)
  local layer = self.scope and self.scope.layer
  if layer then table.insert(layer.compensates, name) end
  return layer ~= nil
end

function Model:run(callback)
  self.events[#self.events + 1] = callback.name
  if callback.effect then callback.effect(self) end
end

local function append(to, from)
  for _, v in ipairs(from) do to[#to + 1] = v end
end

local EXIT = {}

function EXIT.join(self, scope, failed)
  if failed then scope.layer.marked = true end
  self.scope = scope.around
end

EXIT.none = function(self, scope) self.scope = scope.around end
EXIT.suspend = EXIT.none

local function undo(self, scope, layer)
  self.scope = scope.around
  for i = #layer.compensates, 1, -1 do self.events[#self.events + 1] = layer.compensates[i] end
end

function EXIT.savepoint(self, scope, failed)
  local tx = scope.tx
  if not failed and not scope.layer.marked then self:flush() end
  local layer = table.remove(tx.layers)
  if failed or layer.marked then
    undo(self, scope, layer)
    return not failed and "unexpected" or nil
  end
  local around = top(tx)
  for id, row in pairs(layer.rows) do around.rows[id] = row end
  append(around.commits, layer.commits)
  append(around.compensates, layer.compensates)
  self.scope = scope.around
end

function EXIT.create(self, scope, failed)
  local layer = scope.layer
  if failed or layer.marked then
    undo(self, scope, layer)
    return not failed and "unexpected" or nil
  end
  for id, row in pairs(layer.rows) do self.committed[id] = row or nil end
  self.scope = nil -- callbacks run outside of everything
  for _, callback in ipairs(layer.commits) do self:run(callback) end
  self.scope = scope.around
end
EXIT.suspend_create = EXIT.create

--- Leaves the scope: "unexpected" when it was to be committed and could not be.
function Model:exit(failed)
  local scope = self.scope
  return EXIT[scope.action](self, scope, failed)
end

return Model
