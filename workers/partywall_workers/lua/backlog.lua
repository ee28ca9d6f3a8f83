-- Tenants' jobs in numbers.
--
-- KEYS[1]  the queue
-- ARGV[1]  now in milliseconds, or ''
-- ARGV[2..] tenants
-- returns  for each {tier, lane, weight, queued, deferred, running, dead, oldest wait in ms,
--          concurrency, max_queued, paused, held, claims, retries, dead since ever, expired}; '' is
--          none
--- @include "keys"
--- @include "clock"
--- @include "rate"
--- @include "tenants"

local BAND = 1e14

local function oldest(id)
  local at = now
  for priority = 0, 9 do
    local first = redis.call('ZRANGEBYSCORE', of('ready', id), whole(priority * BAND),
      '(' .. whole((priority + 1) * BAND), 'LIMIT', 0, 1)
    if first[1] then at = math.min(at, tonumber(redis.call('HGET', job_key(id, first[1]), 'run_at'))) end
  end
  local first = redis.call('ZRANGE', of('deferred', id), 0, 0, 'WITHSCORES')
  if first[2] then at = math.min(at, tonumber(first[2])) end
  return now - at
end

local answers = {}
for at = 2, #ARGV do
  local id = ARGV[at]
  local tenant = tenant_of(id)
  local counted = redis.call('HMGET', of('tenant', id), 'claims', 'retries', 'dead', 'expired')
  local due = redis.call('ZCOUNT', of('deferred', id), '-inf', whole(now))
  answers[#answers + 1] = {tenant.tier or '', tenant.lane, exact(tenant.weight),
    redis.call('ZCARD', of('ready', id)) + due, redis.call('ZCARD', of('deferred', id)) - due,
    running_of(tenant), redis.call('ZCARD', of('dead', id)), whole(oldest(id)),
    tenant.concurrency or '', tenant.max_queued or '', tenant.paused and 1 or 0, tenant.held or '',
    counted[1] or 0, counted[2] or 0, counted[3] or 0, counted[4] or 0}
end
return answers
