-- SPDX-License-Identifier: MIT
-- What the console does on demand: dead letters, events that failed, callbacks; queues that stop and go on.
-- Whoever drops says which, one by one: what has come since he looked stays.

local errors = require "regolith.err"
local native = require "regolith.native"
local plain = require "regolith.console.plain"
local read = require "regolith.console.read"

local M = {}

local MOST = 500

local function invalid(field, text) return nil, errors.new("INVALID", text, { field = field }) end

local function is_number(v) return type(v) == "number" and v >= 1 and v % 1 == 0 and v <= 9007199254740991 end

--- The numbers that a request names, in order; or nil and the answer to it.
local function numbers_of(body)
  local given = type(body.numbers) == "table" and body.numbers or { body.number }
  local numbers = {}
  for i, number in ipairs(given) do
    if not is_number(number) or i > MOST then return invalid("numbers", "at most 500 numbers are wanted") end
    numbers[i] = number
  end
  if #numbers == 0 then return invalid("numbers", "the numbers of what is meant are wanted") end
  table.sort(numbers)
  return numbers
end

local function failure(number, fault, open)
  local message = open and fault.message or plain.redact(fault.message, fault.errno)
  return { number = number, code = fault.code, error = message }
end

-- ---- dead letters -------------------------------------------------------------------------------

--- Why a letter is there still, or nil when it is gone.
local function left_over(console, queue, number, open)
  local letter, fault = console._orm:dead_letter(number, queue)
  if letter then
    local text = open and letter.error or plain.redact(letter.error, letter.errno)
    return { number = number, code = "STAYS", error = text }
  end
  return fault and fault.code ~= "INVALID" and failure(number, fault, open) or nil
end

--- Does something to each of some letters; a server that is away ends it.
local function each(console, body, what)
  local queue, fault = read.queue(console, body.queue)
  local numbers
  if queue then numbers, fault = numbers_of(body) end
  if not numbers then return nil, fault end
  local answer = { queue = queue, done = plain.list {}, failed = plain.list {} }
  for _, number in ipairs(numbers) do
    local ok, why = what(queue, number)
    if ok then
      answer.done[#answer.done + 1] = number
    else
      answer.failed[#answer.failed + 1] = why
      if why.code == "UNAVAILABLE" or why.code == "TIMEOUT" then break end
    end
  end
  return answer
end

M["letters/retry"] = function(console, body)
  local open = console:_is_open(body)
  return each(console, body, function(queue, number)
    local left, fault = console._orm:retry(number, queue)
    if not left then return nil, failure(number, fault, open) end
    local why = left_over(console, queue, number, open)
    return why == nil, why
  end)
end

M["letters/drop"] = function(console, body)
  return each(console, body, function(queue, number)
    local left, fault = console._orm:drop(number, queue)
    if not left then return nil, failure(number, fault, console:_is_open(body)) end
    return true
  end)
end

local WRITES = { insert = true, update = true, delete = true }

--- New values: what orm:edit takes; JSON's null is NULL.
local function change_of(body)
  local change = { force = body.force == true }
  if body.operation ~= nil and body.operation ~= native.null then
    if not WRITES[body.operation] then return invalid("operation", "insert, update or delete is wanted") end
    change.operation = body.operation
  end
  if type(body.values) == "table" then
    for path, v in pairs(body.values) do
      if type(path) ~= "string" or type(v) == "table" then return invalid("values", "values by field are wanted") end
    end
    if next(body.values) ~= nil then change.values = body.values end
  end
  if not change.values and not change.operation and not change.force then
    return invalid("values", "nothing is changed")
  end
  return change
end

M["letters/edit"] = function(console, body)
  local queue, fault = read.queue(console, body.queue)
  local change
  if queue then change, fault = change_of(body) end
  if not change then return nil, fault end
  if not is_number(body.number) then return invalid("number", "a number of a dead letter is wanted") end
  local called, ok, why = pcall(console._orm.edit, console._orm, body.number, change, queue)
  if not called then -- a field that is not there
    return invalid("values", (tostring(ok):gsub("^[^:]+:%d+: ", "")))
  end
  if not ok then return nil, why end
  return { number = body.number }
end

-- ---- queues -------------------------------------------------------------------------------------

local function set_paused(name)
  return function(console, body)
    local queue, fault = read.queue(console, body.queue)
    local ok
    if queue then ok, fault = console._orm[name](console._orm, queue) end
    if not ok then return nil, fault end
    return { queue = queue }
  end
end

M["queue/pause"], M["queue/resume"] = set_paused "pause", set_paused "resume"

-- ---- events -------------------------------------------------------------------------------------

local function each_event(name)
  return function(console, body)
    local stream, group, queue = read.group(console, body)
    if not stream then return nil, group end
    local letters, n = body.letters, 0
    if type(letters) ~= "table" or #letters == 0 or #letters > MOST then
      return invalid("letters", "the letters that are meant are wanted")
    end
    for _, letter in ipairs(letters) do
      if type(letter) ~= "string" or not letter:match "^%d+%-%d+$" then return invalid("letters", "no letter") end
      local done, fault = console._orm[name](console._orm, stream, group, letter, { queue = queue })
      if not done then return nil, fault end
      n = n + done
    end
    return { stream = stream, group = group, n = n }
  end
end

M["streams/retry"], M["streams/drop"] = each_event "event_retry", each_event "event_drop"

-- ---- callbacks ----------------------------------------------------------------------------------

local function each_callback(name)
  return function(console, body)
    local pool, fault = read.queue(console, body.queue)
    local numbers
    if pool then numbers, fault = numbers_of(body) end
    if not numbers then return nil, fault end
    local n = 0
    for _, number in ipairs(numbers) do
      local done
      done, fault = console._orm[name](console._orm, number, { pool = pool })
      if not done then return nil, fault end
      n = n + done
    end
    return { queue = pool, n = n }
  end
end

M["callbacks/retry"], M["callbacks/drop"] = each_callback "callback_retry", each_callback "callback_drop"

return M
