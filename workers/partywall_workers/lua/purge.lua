-- Cancels jobs of a tenant that wait; called again until there is none left, so that no call holds
-- up the server for long.
--
-- KEYS[1]  the queue
-- ARGV[1]  now in milliseconds, or ''
-- ARGV[2]  tenant
-- ARGV[3]  how many at most
-- ARGV[4]  milliseconds that they are kept
-- ARGV[5]  the sequence after which jobs are left alone, or '': this call says it
-- returns  {how many, sequence}
--- @include "keys"
--- @include "clock"
--- @include "rate"
--- @include "tenants"
--- @include "finish"

local tenant = tenant_of(ARGV[2])
local id, most, keep = tenant.id, tonumber(ARGV[3]), tonumber(ARGV[4])
-- What is enqueued while we purge stays: or a busy producer would keep us here for ever.
local last = ARGV[5]
if last == '' then last = redis.call('HGET', one_of('clock'), ':sequence') or '0' end
local purged = 0

local function purge(kind, job)
  local owed = redis.call('HGET', job_key(id, job), 'owed') or ''
  redis.call('ZREM', of(kind, id), job)
  finish(tenant, job, 'cancelled', keep, '', 'purged', '', owed, true)
  purged = purged + 1
end

-- A rank is a priority, then the sequence.
for priority = 0, 9 do
  local jobs = redis.call('ZRANGEBYSCORE', of('ready', id), whole(priority * 1e14),
    whole(priority * 1e14 + tonumber(last)), 'LIMIT', 0, most - purged)
  for _, job in ipairs(jobs) do purge('ready', job) end
end

local passed = 0
while purged < most do
  local jobs = redis.call('ZRANGE', of('deferred', id), passed, passed + most - purged - 1)
  if not jobs[1] then break end
  for _, job in ipairs(jobs) do
    if tonumber(redis.call('ZSCORE', of('all', id), job)) <= tonumber(last) then
      purge('deferred', job)
    else
      passed = passed + 1
    end
  end
end
tidy(tenant)
arrange(tenant)
save()
return {purged, last}
