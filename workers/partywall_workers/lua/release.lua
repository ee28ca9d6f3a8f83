-- Says how tries ended: the jobs are finished, or wait for another.
--
-- KEYS[1]  the queue
-- ARGV[1]  now in milliseconds, or ''
-- ARGV[2..] for each try 9: 'tenant:id', fence, how ('succeeded', 'failed', 'dead', 'cancelled',
--          'retry'), milliseconds that the job is kept, milliseconds until the next try, result as
--          arq has it or '', error, traceback, owed: quota items to give back, as JSON, or ''
--          how 'retry' or 'dead' may be followed by letters: u: the try does not count, r: for want
--          of quota, c: quota items are consumed, s: it has run
-- returns  for each try 1, or 0: it is somebody else's by now, and nothing was changed
--
-- The fence is the number of this very start, so what a worker says that was taken for dead, and
-- whose job has been started again, is refused.
--- @include "keys"
--- @include "clock"
--- @include "rate"
--- @include "tenants"
--- @include "usage"
--- @include "finish"

local METERED = {succeeded = 'succeeded', failed = 'failed', dead = 'failed'}

-- What its next try must know, or the first after it is revived.
local function keep_deeds(key, letters)
  if string.find(letters, 'c', 1, true) then redis.call('HSET', key, 'consumed', 1) end
  if string.find(letters, 's', 1, true) then redis.call('HSET', key, 'ran', 1) end
end

-- A job that died before this start could call anything stands as its last try left it.
local function forget_start(key, attempts)
  local before = redis.call('HGET', key, 'started_before')
  redis.call('HSET', key, 'attempts', attempts - 1)
  if before then
    redis.call('HSET', key, 'started_at', before)
  else
    redis.call('HDEL', key, 'started_at')
  end
end

local function retry(tenant, id, job, v, letters, delay, error, traceback, owed)
  local key = job_key(id, job)
  local attempts = tonumber(v[3])
  if string.find(letters, 'u', 1, true) then attempts = attempts - 1 end
  local run_at = now + delay
  local status = 'retrying'
  if attempts == 0 then status = delay > 0 and 'deferred' or 'queued' end
  redis.call('HSET', key, 'status', status, 'attempts', attempts, 'run_at', whole(run_at),
    'error', error, 'traceback', traceback)
  if string.find(letters, 'r', 1, true) then redis.call('HINCRBY', key, 'refusals', 1) end
  keep_deeds(key, letters)
  if owed ~= '' then
    redis.call('HSET', key, 'owed', owed)
  else
    redis.call('HDEL', key, 'owed')
  end
  redis.call('ZADD', Q, whole(run_at), arq_id(id, job))
  if delay > 0 then
    defer(tenant, job, run_at)
  else
    redis.call('ZADD', of('ready', id), v[4], job)
  end
  count_own(tenant, 'retries')
end

local touched = {}

local function release(at)
  local id, job = parts(ARGV[at])
  local v = redis.call('HMGET', job_key(id, job), 'status', 'fence', 'attempts', 'rank', 'cancel',
    'error', 'started_at')
  if v[1] ~= 'running' or v[2] ~= ARGV[at + 1] then return 0 end
  local tenant = tenant_of(id)
  if tenant.gone then return 0 end
  touched[tenant] = true
  vacate(tenant, job)
  meter_time(tenant, 'run_seconds', tonumber(v[7]), now)
  local how, keep, delay = ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local letters = string.match(how, '^retry(.*)$')
  if letters and v[5] then how, letters = 'cancelled', nil end
  local deeds = string.match(how, '^dead(.*)$')
  if deeds then
    keep_deeds(job_key(id, job), deeds)
    if string.find(deeds, 'u', 1, true) then forget_start(job_key(id, job), tonumber(v[3])) end
    how = 'dead'
  end
  if letters then
    retry(tenant, id, job, v, letters, delay, ARGV[at + 6], ARGV[at + 7], ARGV[at + 8])
  else
    if METERED[how] then meter(tenant, METERED[how], 1) end
    finish(tenant, job, how, keep, ARGV[at + 5], ARGV[at + 6], ARGV[at + 7], ARGV[at + 8],
      v[6])
  end
  return 1
end

local answers = {}
for at = 2, #ARGV, 9 do answers[#answers + 1] = release(at) end
for tenant in pairs(touched) do
  tidy(tenant)
  offer(tenant)
end
save()
save_usage()
return answers
