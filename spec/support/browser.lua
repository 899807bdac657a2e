-- SPDX-License-Identifier: MIT
-- A headless Chromium for specs, spoken to in its own protocol through two pipes: no driver, no port.
--
--   local browser = require("support.browser").start()      nil when there is no Chromium
--   browser:open "http://127.0.0.1:8080/"
--   browser:eval "document.title"
--   browser:close()

local faults = require "support.faults"
local native = require "regolith.native"
local support = require "support.init"

local must = support.must
local M = {}

local NAMES = { "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome" }

local function find()
  local named = os.getenv "REGOLITH_CHROMIUM"
  if named and named ~= "" then return named end
  for _, name in ipairs(NAMES) do
    local path = support.shell("command -v " .. name):match "^(/[^\n]+)"
    if path then return path end
  end
  local glob = "ls -d $HOME/.cache/ms-playwright/chromium-*/chrome-linux*/chrome 2>/dev/null | tail -n 1"
  return support.shell(glob):match "^(/[^\n]+)"
end

--- The program, or nil when there is none that starts; REGOLITH_CHROMIUM names one that is elsewhere.
function M.program()
  local path = find()
  if not path then return nil end
  local version = support.shell(string.format("timeout 60 '%s' --version", path))
  return version:find "Chrom" and path or nil
end

---@class Browser
---@field folder string its profile
---@field faults string[] what the page complained of: errors, and what its policy forbade
local Browser = {}
Browser.__index = Browser

local FLAGS = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions "
  .. "--disable-background-networking --disable-component-update --disable-sync --hide-scrollbars --mute-audio "
  .. "--remote-debugging-pipe --window-size=1280,900 "

local function read_message(self)
  local parts = {}
  while true do
    local c = self.from:read(1)
    if not c then error("the browser has ended: " .. (self:said() or ""), 0) end
    if c == "\0" then return native.json_decode(table.concat(parts)) end
    parts[#parts + 1] = c
  end
end

function Browser:said()
  local file = io.open(self.folder .. "/log", "r")
  local text = file and file:read "*a"
  if file then file:close() end
  return text
end

--- What the page says by itself.
local function note(self, message)
  local method, params = message.method, message.params
  if method == "Runtime.exceptionThrown" then
    local details = params.exceptionDetails
    self.faults[#self.faults + 1] = (details.exception and details.exception.description) or details.text
  elseif method == "Log.entryAdded" and params.entry.level == "error" and params.entry.source ~= "network" then
    self.faults[#self.faults + 1] = params.entry.text
  elseif method == "Runtime.consoleAPICalled" and params.type == "error" then
    self.faults[#self.faults + 1] = native.json_encode(params.args)
  elseif method == "Page.javascriptDialogOpening" then
    self.faults[#self.faults + 1] = "a dialog: " .. tostring(params.message)
  end
end

--- A command and its answer.
function Browser:send(method, params, top)
  self.id = self.id + 1
  local message = { id = self.id, method = method, params = params or setmetatable({}, {}) }
  if next(message.params) == nil then message.params = { ignored = true } end
  if not top then message.sessionId = self.session end
  self.to:write(native.json_encode(message), "\0")
  self.to:flush()
  while true do
    local answer = read_message(self)
    if answer.id == self.id then
      if answer.error then error(method .. ": " .. native.json_encode(answer.error), 2) end
      return answer.result
    end
    note(self, answer)
  end
end

--- The value of an expression, promises awaited.
function Browser:eval(text)
  local answer = self:send("Runtime.evaluate", { expression = text, awaitPromise = true, returnByValue = true })
  if answer.exceptionDetails then
    local details = answer.exceptionDetails
    error("in the page: " .. ((details.exception and details.exception.description) or details.text), 2)
  end
  local v = answer.result.value
  if v == native.null then return nil end
  return v
end

--- Waits until an expression is true in the page.
function Browser:await(text, seconds)
  return faults.await(text, function()
    local v = self:eval(text)
    return v ~= false and v ~= nil and v or nil
  end, seconds)
end

function Browser:open(url)
  self:send("Page.navigate", { url = url })
  self:await "document.readyState === 'complete'"
end

--- The size of the window, and whether it is dark.
function Browser:resize(width, height, dark, mobile)
  self:send("Emulation.setDeviceMetricsOverride",
    { width = width, height = height, deviceScaleFactor = mobile and 2 or 1, mobile = mobile or false })
  self:send("Emulation.setEmulatedMedia",
    { features = { { name = "prefers-color-scheme", value = dark and "dark" or "light" },
      { name = "prefers-reduced-motion", value = "reduce" } } })
end

--- Types into what has the focus.
function Browser:type(text) self:send("Input.insertText", { text = text }) end

--- Presses a key: "Tab", "Enter", "Escape", "ArrowLeft", "Space".
function Browser:key(name, modifiers)
  local codes = { Tab = 9, Enter = 13, Escape = 27, ArrowLeft = 37, ArrowRight = 39, Space = 32 }
  local key = name == "Space" and " " or name
  local text = name == "Enter" and "\r" or name == "Space" and " " or nil
  self:send("Input.dispatchKeyEvent", { type = text and "keyDown" or "rawKeyDown", key = key, code = name, text = text,
    windowsVirtualKeyCode = codes[name], modifiers = modifiers or 0 })
  self:send("Input.dispatchKeyEvent", { type = "keyUp", key = key, code = name,
    windowsVirtualKeyCode = codes[name], modifiers = modifiers or 0 })
end

local DIGITS = {}
for i = 1, 64 do
  DIGITS[("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):sub(i, i)] = i - 1
end

local function decode64(text)
  local out, bits, n = {}, 0, 0
  for c in text:gmatch "[%w+/]" do
    bits, n = bits * 64 + DIGITS[c], n + 6
    if n >= 8 then
      n = n - 8
      out[#out + 1] = string.char(math.floor(bits / 2 ^ n))
      bits = bits % 2 ^ n
    end
  end
  return table.concat(out)
end

--- A picture of the page as PNG.
function Browser:screenshot(whole)
  local answer = self:send("Page.captureScreenshot", { format = "png", captureBeyondViewport = whole or false })
  return decode64(answer.data)
end

function Browser:close()
  pcall(self.send, self, "Browser.close", nil, true)
  self.to:close()
  self.from:close()
  pcall(faults.await, "the end of the browser", function()
    return support.shell("kill -0 " .. self.pid .. " 2>&1"):find "No such process"
  end, 10)
  support.shell(string.format("kill -9 -- -%s 2>/dev/null; rm -rf '%s'", self.pid, self.folder))
end

--- Starts one, or nil when there is none.
---@param limit_s? integer after so long it is killed, whatever it is at [300]
---@return Browser?
function M.start(limit_s)
  local program = M.program()
  if not program then return nil end
  local folder = support.shell("mktemp -d"):gsub("\n", "")
  local self = setmetatable({ folder = folder, id = 0, faults = {} }, Browser)
  must(support.shell(string.format("mkfifo %s/to %s/from && echo made", folder, folder)):find "made")
  faults.write_file(folder .. "/run", string.format([[
    exec timeout -s KILL %d '%s' %s --user-data-dir=%s/profile --crash-dumps-dir=%s about:blank \
      3<%s/to 4>%s/from >%s/log 2>&1 </dev/null
  ]], limit_s or 300, program, FLAGS, folder, folder, folder, folder, folder))
  self.pid = support.shell(string.format("setsid sh %s/run >/dev/null 2>&1 </dev/null & echo $!", folder)):match "%d+"
  self.to = must(io.open(folder .. "/to", "w"))
  self.from = must(io.open(folder .. "/from", "r"))
  local target = self:send("Target.createTarget", { url = "about:blank" }, true)
  self.session = self:send("Target.attachToTarget", { targetId = target.targetId, flatten = true }, true).sessionId
  for _, domain in ipairs { "Page", "Runtime", "Log" } do self:send(domain .. ".enable") end
  return self
end

return M
