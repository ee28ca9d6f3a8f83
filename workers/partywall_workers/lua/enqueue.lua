-- Queues jobs, each all or not at all.
--
-- KEYS[1]  the queue
-- ARGV[1]  now in milliseconds, or ''
-- ARGV[2..] for each job 10: tenant, id, function, payload, priority, delay in ms ('': none), run at
--          in ms ('': at once or by the delay), expires after ms ('': never), tries already had,
--          the number of the start of that tenant's job which queues it ('': none does)
-- returns  for each job {what, queued at, run at}: 'created', 'exists', 'full' (and the cap),
--          'unknown' (no worker has the function, and some worker is known), 'gone' (the tenant was
--          erased), 'asked' (likewise, and a sidecar shall say whether it is served again)
--
-- One step, because of two with the same id only one may be made, and a queue with one place left
-- takes one job.
--- @include "keys"
--- @include "clock"
--- @include "rate"
--- @include "tenants"
--- @include "finish"

local HOUR = 3600000
local known = {}

-- Workers tell only of what registered tenants may enqueue, not of what is for those with `_`.
local function function_known(id, name)
  if id:sub(1, 1) == '_' then return true end
  if known[name] == nil then
    local seen = redis.call('HGET', one_of('functions'), name)
    known[name] = (seen and tonumber(seen) > now - HOUR)
      or redis.call('EXISTS', one_of('functions')) == 0
  end
  return known[name]
end

-- A tenant that was erased: what is left of it may queue nothing, whoever has its id by now.
local function refusal(tenant, fence)
  if tenant.gone then return ask_for(tenant) end
  if fence ~= '' and tonumber(fence) <= (erased_at(tenant.id) or -1) then return 'gone' end
end

local function enqueue(at)
  local id, job, name, payload = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local tenant = tenant_of(id)
  local refused = refusal(tenant, ARGV[at + 9])
  if refused then return {refused, '0', '0'} end
  local key = job_key(id, job)
  if redis.call('EXISTS', key) == 1 then return {'exists', '0', '0'} end
  if not function_known(id, name) then return {'unknown', '0', '0'} end
  if tenant.max_queued then
    tenant.waiting = tenant.waiting or waiting_of(tenant)
    if tenant.waiting >= tenant.max_queued then return {'full', whole(tenant.max_queued), '0'} end
    tenant.waiting = tenant.waiting + 1
  end

  local run_at = now + tonumber(ARGV[at + 5] == '' and '0' or ARGV[at + 5])
  if ARGV[at + 6] ~= '' then run_at = math.max(now, tonumber(ARGV[at + 6])) end
  local sequence = redis.call('HINCRBY', one_of('clock'), ':sequence', 1)
  local rank = whole((9 - tonumber(ARGV[at + 4])) * 1e14 + sequence)
  redis.call('HSET', key, 'function', name, 'status', run_at > now and 'deferred' or 'queued',
    'priority', ARGV[at + 4], 'attempts', ARGV[at + 8], 'queued_at', whole(now),
    'run_at', whole(run_at), 'rank', rank)
  if ARGV[at + 7] ~= '' then
    redis.call('HSET', key, 'expires', whole(run_at + tonumber(ARGV[at + 7])),
      'stopped_ms', whole(stopped_ms(tenant)))
  end
  redis.call('SET', payload_key(id, job), payload)
  redis.call('DEL', result_key(id, job))
  redis.call('ZADD', Q, whole(run_at), arq_id(id, job))
  if redis.call('ZADD', of('all', id), sequence, job) == 0 then
    -- Redis has forgotten an older job of this id before we have.
    redis.call('ZREM', of('kept', id), job)
    redis.call('ZREM', of('dead', id), job)
  end
  if run_at > now then
    defer(tenant, job, run_at)
  else
    redis.call('ZADD', of('ready', id), rank, job)
  end
  if redis.call('ZINCRBY', one_of('busy'), 1, id) == '1' then revive_lists(tenant) end
  tenant.queued = true
  return {'created', whole(now), whole(run_at)}
end

local answers = {}
for at = 2, #ARGV, 10 do answers[#answers + 1] = enqueue(at) end
for _, tenant in pairs(tenants) do
  if tenant.queued then
    want_policy(tenant)
    offer(tenant)
  end
end
save()
return answers
