-- SPDX-License-Identifier: MIT
-- The console's page, its style and its script: text that holds no data. The page allows its own two files
-- by a nonce and nothing else: no inline script or style, no other address, no frame, and no HTML that is
-- made of text (trusted types).

local native = require "regolith.native"

local M = {}

local SCRIPTS = { "core", "charts", "overview", "letters", "more" }

local HTML = [==[
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex, nofollow">
<title>@title</title>
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E
%3Crect width='16' height='16' rx='4' fill='%23275d66'/%3E%3Cpath d='M3 5h10M3 8h7M3 11h9' stroke='%23f3efe6'
 stroke-width='2' stroke-linecap='round'/%3E%3C/svg%3E">
<link rel="stylesheet" href="console.css" nonce="@nonce">
</head>
<body>
<a class="skip" href="#main">To the content</a>
<header id="top" hidden></header>
<main id="main" tabindex="-1"></main>
<div id="live" class="toast" role="status" aria-live="polite"></div>
<noscript><p class="plain">The console needs its script, which this browser does not run.</p></noscript>
<script src="console.js" nonce="@nonce" defer></script>
</body>
</html>
]==]

local POLICY = table.concat({
  "default-src 'none'", "script-src 'nonce-@nonce'", "style-src 'nonce-@nonce'", "connect-src 'self'", "img-src data:",
  "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
  "trusted-types 'none'",
}, "; ")

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

--- Twelve unpredictable bytes as hexadecimal digits.
local function new_nonce()
  local file = assert(io.open("/dev/urandom", "rb"))
  local bytes = file:read(12)
  file:close()
  return (bytes:gsub(".", function(c) return string.format("%02x", c:byte()) end))
end

local function html(title)
  local values = { title = title:gsub("[&<>\"']", ENTITIES), nonce = new_nonce() }
  local function fill(text) return (text:gsub("@(%a+)", values)) end
  return { kind = "text/html; charset=utf-8", body = fill(HTML),
    headers = { ["Content-Security-Policy"] = fill(POLICY) } }
end

--- A number that changes with the text: whether a browser has it already.
local function etag_of(text)
  local n = 5381
  for i = 1, #text do n = (n * 33 + text:byte(i)) % 4294967296 end
  return string.format('"%s-%x-%x"', native.version, #text, n)
end

local function file_of(kind, text)
  local etag = etag_of(text)
  return { kind = kind, body = text, etag = etag, headers = { ETag = etag, ["Cache-Control"] = "no-cache" } }
end

local files = {}

local MAKE = {}

MAKE["console.css"] = function() return file_of("text/css; charset=utf-8", require "regolith.console.style") end

MAKE["console.js"] = function()
  local parts = { "(function () {\n\"use strict\";\n" }
  for _, name in ipairs(SCRIPTS) do parts[#parts + 1] = require("regolith.console.script_" .. name) end
  parts[#parts + 1] = "start();\n})();\n"
  return file_of("text/javascript; charset=utf-8", table.concat(parts))
end

--- A file of the page by its name, "" being the page.
---@param name string
---@param title string
---@return { kind: string, body: string, etag: string?, headers: table }?
function M.file(name, title)
  if name == "" then return html(title) end
  if not files[name] and MAKE[name] then files[name] = MAKE[name]() end
  return files[name]
end

return M
