-- Queues a dead job anew, with all its tries.
--
-- KEYS[1]  the queue
-- ARGV[1]  now in milliseconds, or ''
-- ARGV[2]  tenant
-- ARGV[3]  job id
-- returns  {what, cap}: 'revived', 'full', 'unknown', or the status it has instead of dead
--- @include "keys"
--- @include "clock"
--- @include "rate"
--- @include "tenants"
--- @include "finish"

local id, job = ARGV[2], ARGV[3]
local key = job_key(id, job)
local v = redis.call('HMGET', key, 'status', 'rank')
if not v[1] then return {'unknown', '0'} end
if v[1] ~= 'dead' then return {v[1], '0'} end
local tenant = tenant_of(id)
if tenant.gone then return {'unknown', '0'} end
if tenant.max_queued and waiting_of(tenant) >= tenant.max_queued then
  return {'full', whole(tenant.max_queued)}
end
redis.call('HSET', key, 'status', 'queued', 'attempts', 0, 'run_at', whole(now))
redis.call('HDEL', key, 'finished_at', 'error', 'traceback', 'cancel', 'expires')
redis.call('PERSIST', key)
redis.call('PERSIST', payload_key(id, job))
redis.call('DEL', result_key(id, job))
redis.call('ZREM', of('kept', id), job)
redis.call('ZREM', of('dead', id), job)
redis.call('ZADD', Q, whole(now), arq_id(id, job))
redis.call('ZADD', of('ready', id), v[2], job)
if redis.call('ZINCRBY', one_of('busy'), 1, id) == '1' then revive_lists(tenant) end
want_policy(tenant)
offer(tenant)
save()
return {'revived', '0'}
