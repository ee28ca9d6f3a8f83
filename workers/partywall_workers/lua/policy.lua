-- Writes tenants' policies, and starts or stops what that changes.
--
-- KEYS[1]  the queue
-- ARGV[1]  now in milliseconds, or ''
-- ARGV[2..] for each tenant 9: tenant, tier, features as JSON, weight, concurrency, max_queued,
--          rates as 'quota/seconds quota/seconds', lane, held; '' is unlimited, or none
--- @include "keys"
--- @include "clock"
--- @include "rate"
--- @include "tenants"
--- @include "stop"

local WRITTEN = {'tier', 'features', 'weight', 'concurrency', 'max_queued', 'rates', 'lane', 'held'}

-- Every sidecar writes everyone's whenever it may have missed a change: most are as they were.
local function unchanged(id, at)
  local old = redis.call('HMGET', of('tenant', id), unpack(WRITTEN))
  for place = 1, #WRITTEN do
    if old[place] ~= ARGV[at + place] then return false end
  end
  return true
end

local function write(id, at)
  local key = of('tenant', id)
  local old = tenant_of(id)
  local before = old.paused or old.held ~= nil
  if old.lane ~= ARGV[at + 7] then redis.call('ZREM', of('active', old.lane), id) end
  redis.call('HSET', key, 'policy', 1, 'tier', ARGV[at + 1], 'features', ARGV[at + 2],
    'weight', ARGV[at + 3], 'concurrency', ARGV[at + 4], 'max_queued', ARGV[at + 5],
    'rates', ARGV[at + 6], 'lane', ARGV[at + 7], 'held', ARGV[at + 8])
  redis.call('SADD', one_of('tenants'), id)
  redis.call('SADD', one_of('lanes'), ARGV[at + 7])
  redis.call('SREM', one_of('wanted'), id)
  tenants[id] = nil
  local new = tenant_of(id)
  new.running = nil
  note_stop(new, before)
  arrange(new)
  if not new.paused and not redis.call('ZSCORE', one_of('busy'), id) then
    redis.call('EXPIRE', key, DAY)
  end
end

-- Of a tenant that was erased, and whose id shall not come up again: that it is unknown says nothing
-- worth keeping, and what a sidecar writes without being asked it has read before.
local function is_unknown(id, at)
  return ARGV[at + 8] == 'unknown' and erased_at(id)
    and (tenant_of(id).gone or not redis.call('ZSCORE', one_of('busy'), id))
end

local function is_late(id)
  return tenant_of(id).gone and keeper_until() and redis.call('SREM', one_of('wanted'), id) == 0
end

local function forget(id)
  redis.call('DEL', of('tenant', id))
  redis.call('ZREM', one_of('ends'), id)
  for _, kind in ipairs({'tenants', 'wanted'}) do redis.call('SREM', one_of(kind), id) end
  tenants[id] = nil
end

for at = 2, #ARGV, 9 do
  local id = ARGV[at]
  if is_unknown(id, at) then
    forget(id)
  elseif not unchanged(id, at) then
    if is_late(id) then forget(id) else write(id, at) end
  end
end
save()
