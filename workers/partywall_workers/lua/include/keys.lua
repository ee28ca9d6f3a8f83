-- Names of keys; keys.py says what each holds.
local Q = KEYS[1]

local function of(kind, name) return Q .. ':' .. kind .. ':' .. name end
local function one_of(kind) return Q .. ':' .. kind end
local function job_key(tenant, id) return Q .. ':job:' .. tenant .. ':' .. id end
local function arq_id(tenant, id) return Q .. ':' .. tenant .. ':' .. id end
local function payload_key(tenant, id) return 'arq:job:' .. arq_id(tenant, id) end
local function result_key(tenant, id) return 'arq:result:' .. arq_id(tenant, id) end
local function in_progress_key(tenant, id) return 'arq:in-progress:' .. arq_id(tenant, id) end
local ABORT = 'arq:abort'

-- A tenant's id has no colon.
local function parts(ref)
  local colon = string.find(ref, ':', 1, true)
  return string.sub(ref, 1, colon - 1), string.sub(ref, colon + 1)
end
