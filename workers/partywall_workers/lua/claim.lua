-- Starts up to n jobs, of the tenants whose turn it is.
--
-- KEYS[1]  the queue
-- ARGV[1]  now in milliseconds, or ''
-- ARGV[2]  how many jobs to start at most
-- ARGV[3]  lease in milliseconds
-- ARGV[4]  milliseconds a job is kept that was cancelled when its worker died
-- ARGV[5]  functions whose cost is not 1, as JSON: {"name": cost}
-- ARGV[6..] lanes, the first first
-- returns  {milliseconds until the next instant of which something may come, or -1,
--           job, job, ...}, each {tenant, id, payload or '', fence, attempts, run at, expired,
--           refusals, consumed, ran, tier, features}
--
-- One step from choosing a job to its lease: a worker killed at any instant leaves the job either
-- waiting or with a lease that runs out. Leases that have run out are taken back here, so their jobs
-- run again as soon as any worker looks.
--- @include "keys"
--- @include "clock"
--- @include "rate"
--- @include "tenants"
--- @include "usage"
--- @include "finish"

local slots, lease, keep = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local costs = cjson.decode(ARGV[5])
local started = {-1}
local deadline = whole(now + lease)

local function take_back(tenant, job, ended)
  count_own(tenant, 'expired')
  local key = job_key(tenant.id, job)
  local v = redis.call('HMGET', key, 'rank', 'cancel', 'started_at')
  -- It ran no longer than it was anybody's: later nobody may have looked for hours.
  if v[3] then meter_time(tenant, 'run_seconds', tonumber(v[3]), ended) end
  if v[2] then
    finish(tenant, job, 'cancelled', keep, '', 'cancelled; its worker had died', '', '', true)
  elseif v[1] then
    redis.call('HSET', key, 'status', 'retrying', 'run_at', whole(now), 'ran', 1,
      'error', 'its worker died, or lost its lease')
    redis.call('HDEL', key, 'owed')
    redis.call('ZADD', of('ready', tenant.id), v[1], job)
  end
end

local function reap()
  local past = redis.call('ZRANGEBYSCORE', one_of('leases'), '-inf', whole(now), 'WITHSCORES',
    'LIMIT', 0, 100)
  local touched = {}
  for at = 1, #past, 2 do
    local id, job = parts(past[at])
    local tenant = tenant_of(id)
    vacate(tenant, job)
    if not tenant.gone then
      touched[tenant] = true
      take_back(tenant, job, tonumber(past[at + 1]))
    end
  end
  for tenant in pairs(touched) do
    tidy(tenant)
    offer(tenant)
  end
end

local function bring_due()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', one_of('due'), '-inf', whole(now), 'LIMIT', 0, 100)) do
    redis.call('ZREM', one_of('due'), id)
    arrange(tenant_of(id))
  end
end

local function start(tenant, tag, job, fence)
  local id = tenant.id
  local key = job_key(id, job)
  local v = redis.call('HMGET', key, 'function', 'attempts', 'run_at', 'expires', 'stopped_ms',
    'refusals', 'consumed', 'ran', 'started_at')
  local attempts = tonumber(v[2] or '0') + 1
  if tenant.running then tenant.running = tenant.running + 1 end
  redis.call('HSET', key, 'status', 'running', 'attempts', attempts, 'started_at', whole(now),
    'fence', whole(fence))
  if v[9] then redis.call('HSET', key, 'started_before', v[9]) end
  redis.call('SET', in_progress_key(id, job), 1)
  redis.call('ZADD', of('running', id), deadline, job)
  redis.call('ZADD', one_of('leases'), deadline, id .. ':' .. job)
  served(tenant.lane, tag)
  tenant.finish = tag + (costs[v[1]] or 1) / tenant.weight
  tenant.claims = tenant.claims + 1
  tenant.served = true
  rate_charge(tenant)
  count(tenant, 'claims')
  meter(tenant, 'started', 1)
  -- Time in which it was paused or held is not the queue's: a wait begins anew after that.
  meter_time(tenant, 'wait_seconds', math.max(tonumber(v[3] or now), tenant.resumed_at), now)
  local expired = 0
  if v[4] and v[8] ~= '1' then -- what has run before was in time
    local by = tonumber(v[4]) + stopped_ms(tenant) - tonumber(v[5] or '0')
    if now > by then expired = 1 end
  end
  started[#started + 1] = {id, job, redis.call('GET', payload_key(id, job)) or '', whole(fence),
    attempts, v[3] or '0', expired, v[6] or '0', v[7] or '0', v[8] or '0',
    tenant.tier or '', tenant.features}
end

local function serve(lane, fence)
  local active = of('active', lane)
  while slots > 0 do
    local head = redis.call('ZRANGE', active, 0, 0, 'WITHSCORES')
    if not head[1] then return end
    local tenant, tag = tenant_of(head[1]), tonumber(head[2])
    if tenant.lane ~= lane then
      redis.call('ZREM', active, tenant.id)
      arrange(tenant)
    elseif not may_start(tenant) or rate_wait(tenant) > 0 then
      arrange(tenant) -- a keeper has come, or the clock has stepped back
    else
      promote(tenant)
      local first = redis.call('ZPOPMIN', of('ready', tenant.id))
      if first[1] then
        slots = slots - 1
        start(tenant, tag, first[1], fence + slots)
      end
      requeue(tenant)
    end
  end
end

reap()
bring_due()
if slots > 0 then
  local fence = redis.call('HINCRBY', one_of('clock'), ':fence', slots) - slots + 1
  for at = 6, #ARGV do serve(ARGV[at], fence) end
end
local lanes = {}
for at = 6, #ARGV do
  lanes[ARGV[at]] = true
  if redis.call('EXISTS', of('active', ARGV[at])) == 1 then
    wake(ARGV[at]) -- for another worker: this one has no slot left
  else
    redis.call('DEL', of('wake', ARGV[at]))
  end
end
save(lanes)
save_usage()

local next_at = nil
for _, kind in ipairs({'due', 'leases'}) do
  local first = redis.call('ZRANGE', one_of(kind), 0, 0, 'WITHSCORES')
  if first[2] and (not next_at or tonumber(first[2]) < next_at) then next_at = tonumber(first[2]) end
end
if next_at then started[1] = math.max(0, next_at - now) end
return started
