-- Erases a tenant: its jobs, some at a time, and what else the queue knows of it; called again until
-- there is none left, so that no call holds up the server for long.
--
-- KEYS[1]  the queue
-- ARGV[1]  now in milliseconds, or ''
-- ARGV[2]  tenant
-- ARGV[3]  how many jobs at most
-- ARGV[4]  milliseconds for which nothing that is late may bring it back
-- ARGV[5]  the sequence after which jobs are left alone, or '': this call says it
-- ARGV[6..] jobs, in place of those in its list
-- returns  {how many, sequence}
--
-- From the first call on the tenant is gone for every script, until a sidecar writes a policy of it.
--- @include "keys"
--- @include "clock"
--- @include "rate"
--- @include "tenants"
--- @include "finish"

local OF_JOBS = {'all', 'ready', 'deferred', 'running', 'kept', 'dead'}
local id, most, last = ARGV[2], tonumber(ARGV[3]), ARGV[5]

local function begin()
  local fence = redis.call('HGET', one_of('clock'), ':fence') or '0'
  redis.call('SET', of('gone', redis.sha1hex(id)), fence, 'PX', ARGV[4])
  last = redis.call('HGET', one_of('clock'), ':sequence') or '0'
  redis.call('ZREM', of('active', tenant_of(id).lane), id)
  for _, kind in ipairs({'tenant', 'starts', 'usage'}) do redis.call('UNLINK', of(kind, id)) end
  for _, kind in ipairs({'tenants', 'wanted', 'metered'}) do redis.call('SREM', one_of(kind), id) end
  redis.call('ZREM', one_of('ends'), id)
  tenants[id] = nil
end

local function jobs_to_erase()
  if #ARGV < 6 then
    return redis.call('ZRANGEBYSCORE', of('all', id), '-inf', last, 'LIMIT', 0, most)
  end
  local jobs = {}
  for at = 6, #ARGV do
    local sequence = redis.call('ZSCORE', of('all', id), ARGV[at])
    if not sequence or tonumber(sequence) <= tonumber(last) then jobs[#jobs + 1] = ARGV[at] end
  end
  return jobs
end

-- How many of them were unfinished.
local function erase(jobs)
  local refs, arqs, keys = {}, {}, {}
  for at, job in ipairs(jobs) do
    refs[at], arqs[at] = id .. ':' .. job, arq_id(id, job)
    keys[#keys + 1] = job_key(id, job)
    keys[#keys + 1] = payload_key(id, job)
    keys[#keys + 1] = result_key(id, job)
    keys[#keys + 1] = in_progress_key(id, job)
  end
  redis.call('UNLINK', unpack(keys))
  redis.call('ZREM', ABORT, unpack(arqs))
  redis.call('ZREM', one_of('leases'), unpack(refs))
  for _, kind in ipairs(OF_JOBS) do redis.call('ZREM', of(kind, id), unpack(jobs)) end
  return redis.call('ZREM', Q, unpack(arqs))
end

if last == '' then begin() end
local tenant = tenant_of(id) -- gone, or somebody has begun anew with it since
local jobs = jobs_to_erase()
if #jobs > 0 then
  local unfinished = erase(jobs)
  if unfinished > 0 then tenant.ended = unfinished end
  tidy(tenant)
elseif tenant.gone then
  for _, kind in ipairs(OF_JOBS) do redis.call('UNLINK', of(kind, id)) end
  for _, kind in ipairs({'tenant', 'starts'}) do redis.call('UNLINK', of(kind, id)) end
  redis.call('ZREM', one_of('busy'), id)
end
arrange(tenant)
save()
return {#jobs, last}
