-- SPDX-License-Identifier: MIT
-- The engine behind this module: the C half, its declarations and its calls. The C half is loaded as
-- a Lua module (values only the C API can make) and through the FFI (everything else).

local has_ffi, ffi = pcall(require, "ffi")
if not has_ffi then error("regolith runs in LuaJIT, and this is " .. _VERSION, 0) end
local has_core, core = pcall(require, "regolith.core")
if not has_core then
  error("the C half of regolith, regolith/core.so, cannot be loaded; is it built (scripts/build release), and on "
    .. "LUA_CPATH? " .. tostring(core), 0)
end

--- A reload of this file (busted gives each spec file fresh modules) finds the types defined.
local function define()
  if not pcall(ffi.typeof, "rg_err") then ffi.cdef(core.cdef) end
end

local function load_library()
  local path = assert(package.searchpath("regolith.core", package.cpath))
  return ffi.load(path)
end

local function check(C)
  if C.rg_abi() ~= core.abi then
    error(string.format("regolith: the engine has ABI %d, this module was built for %d", C.rg_abi(), core.abi), 0)
  end
  if ffi.sizeof("rg_err") ~= C.rg_sizeof_err() or ffi.sizeof("rg_pool_opts") ~= C.rg_sizeof_pool_opts() then
    error("regolith: the engine's structures differ from their declarations; rebuild the C half", 0)
  end
end

define()
local C = load_library()
check(C)

---@class regolith.native
---@field C table the engine's functions
---@field ffi table
---@field null lightuserdata the placeholder for NULL; equals ngx.null and cjson.null
---@field array_mt table metatable that marks a JSON array
---@field version string
local native = {
  C = C,
  ffi = ffi,
  null = core.null,
  array_mt = core.array_mt,
  version = core.version,
  json_encode = core.json_encode,
  json_decode = core.json_decode,
  is_yieldable = core.is_yieldable,
  signal_watch = core.signal_watch,
  signal_taken = core.signal_taken,
  signal_unwatch = core.signal_unwatch,
  --- Scratch for calls that report through rg_err; never kept across a call that may yield.
  err = ffi.new("rg_err"),
}

--- Frees an operation whose results were taken. The collector would do it, but it does not see how much
--- memory of the engine waits for it.
---@param op ffi.cdata* rg_op with a finalizer
function native.done(op) C.rg_op_free(ffi.gc(op, nil)) end

return native
