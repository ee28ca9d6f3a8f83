-- Cancels a job: at once where it waits, through its worker where it runs.
--
-- KEYS[1]  the queue
-- ARGV[1]  now in milliseconds, or ''
-- ARGV[2]  tenant
-- ARGV[3]  job id
-- ARGV[4]  milliseconds that it is kept
-- ARGV[5]  result as arq has it, if it is cancelled at once
-- returns  'cancelled', 'asked' (it runs), 'finished', 'unknown'
--
-- One step, because a job that waits now may be started in the next moment.
--- @include "keys"
--- @include "clock"
--- @include "rate"
--- @include "tenants"
--- @include "finish"

local id, job = ARGV[2], ARGV[3]
local key = job_key(id, job)
local v = redis.call('HMGET', key, 'status', 'owed')
local status = v[1]
if not status then
  redis.call('ZREM', ABORT, arq_id(id, job)) -- or its next namesake would be aborted
  return 'unknown'
end
if status == 'running' then
  redis.call('HSET', key, 'cancel', 1)
  redis.call('ZADD', ABORT, whole(now), arq_id(id, job))
  return 'asked'
end
if status ~= 'queued' and status ~= 'deferred' and status ~= 'retrying' then
  redis.call('ZREM', ABORT, arq_id(id, job))
  return 'finished'
end
local tenant = tenant_of(id)
redis.call('ZREM', of('ready', id), job)
redis.call('ZREM', of('deferred', id), job)
finish(tenant, job, 'cancelled', tonumber(ARGV[4]), ARGV[5], 'cancelled', '', v[2] or '', true)
tidy(tenant)
arrange(tenant)
save()
return 'cancelled'
