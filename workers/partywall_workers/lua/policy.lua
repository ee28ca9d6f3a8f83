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

for at = 2, #ARGV, 9 do
  local id = ARGV[at]
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
save()
