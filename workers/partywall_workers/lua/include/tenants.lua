-- Tenants, each read once a call, and where they stand: `arrange` alone decides who is active.
--
-- Start-time fair queueing (Goyal, Vin, Cheng 1996): a tenant is served by the start tag of its next
-- job; the virtual time of a lane is the tag last served; a job of cost c moves its tenant's tag on
-- by c / weight; who becomes active starts at max(virtual time, its own last finish), so being idle
-- earns no credit and having been served no debt beyond that job.
local DAY = 86400

local FIELDS = {'policy', 'weight', 'concurrency', 'max_queued', 'rates', 'lane', 'held', 'paused',
  'finish', 'finish_lane', 'tier', 'features', 'stopped_at', 'stopped_ms', 'claims', 'deferred_at',
  'resumed_at'}

local tenants = {}
local times = {}
local counted = {}
local keeper = nil

-- When the last sidecar that writes policies counts as gone; nil: there is none.
local function keeper_until()
  if keeper == nil then
    local left = redis.call('PTTL', one_of('keeper'))
    keeper = left >= 0 and now + left + 1
  end
  return keeper or nil
end

local function text_or_nil(text)
  if text == false or text == '' then return nil end
  return text
end

local function read_rates(text)
  local rates = {}
  for quota, window in string.gmatch(text or '', '(%d+)/(%d+)') do
    rates[#rates + 1] = {quota = tonumber(quota), window = tonumber(window)}
  end
  return rates
end

-- The number of the last start before a tenant was erased; nil: it was not, or a day ago.
local function erased_at(id)
  return tonumber(redis.call('GET', of('gone', redis.sha1hex(id))) or '')
end

local function tenant_of(id)
  local tenant = tenants[id]
  if tenant then return tenant end
  local v = redis.call('HMGET', of('tenant', id), unpack(FIELDS))
  tenant = {
    id = id,
    known = v[1] ~= false,
    weight = tonumber(v[2] or '1'),
    concurrency = tonumber(text_or_nil(v[3])),
    max_queued = tonumber(text_or_nil(v[4])),
    rates = read_rates(v[5]),
    lane = text_or_nil(v[6]) or 'default',
    held = text_or_nil(v[7]),
    paused = v[8] ~= false,
    finish = tonumber(v[9] or '0'),
    tier = text_or_nil(v[11]),
    features = v[12] or '[]',
    stopped_at = tonumber(v[13] or ''),
    stopped_ms = tonumber(v[14] or '0'),
    claims = tonumber(v[15] or '0'),
    deferred_at = tonumber(v[16] or ''), -- of the first job that is deferred
    resumed_at = tonumber(v[17] or '0'),
    finish_lane = v[10],
    rings = {},
  }
  -- Erased, and nobody has said since that it is served: nothing of it may come up again.
  tenant.gone = not tenant.known and erased_at(id) ~= nil
  -- Tags of one lane mean nothing in another.
  if tenant.finish_lane ~= tenant.lane then tenant.finish = 0 end
  tenants[id] = tenant
  return tenant
end

local function virtual_time(lane)
  if not times[lane] then
    times[lane] = {value = tonumber(redis.call('HGET', one_of('clock'), lane) or '0')}
  end
  return times[lane].value
end

local function served(lane, tag)
  if tag > virtual_time(lane) then times[lane] = {value = tag, changed = true} end
end

-- One token: whoever takes it and cannot finish the work wakes the next.
local function wake(lane)
  if redis.call('EXISTS', of('wake', lane)) == 0 then redis.call('LPUSH', of('wake', lane), 1) end
end

-- What metrics tell, by tier.
local function count(tenant, what)
  local tier = tenant.tier or ''
  counted[tier] = counted[tier] or {}
  counted[tier][what] = (counted[tier][what] or 0) + 1
end

-- What is told of each tenant, too.
local function count_own(tenant, what)
  count(tenant, what)
  redis.call('HINCRBY', of('tenant', tenant.id), what, 1)
end

local function running_of(tenant)
  if not tenant.running then tenant.running = redis.call('ZCARD', of('running', tenant.id)) end
  return tenant.running
end

local function waiting_of(tenant)
  return redis.call('ZCARD', of('ready', tenant.id)) + redis.call('ZCARD', of('deferred', tenant.id))
end

-- While no sidecar lives to write policies, a tenant without one goes on by the defaults.
local function may_start(tenant)
  if tenant.gone or tenant.held or tenant.paused then return false end
  return tenant.known or not keeper_until()
end

local function want_policy(tenant)
  if not tenant.known and redis.call('SADD', one_of('wanted'), tenant.id) == 1 then
    redis.call('LPUSH', one_of('keeper:wake'), 1)
    redis.call('LTRIM', one_of('keeper:wake'), 0, 0)
  end
end

-- Of a tenant that was erased: a sidecar knows whether somebody has registered it anew, or whether a
-- tier serves whom nobody registered.
local function ask_for(tenant)
  if not keeper_until() then return 'gone' end
  want_policy(tenant)
  return 'asked'
end

-- Learns when the first deferred job of a tenant comes; that is kept beside its policy, so that
-- tenants who defer nothing are not asked.
local function note_deferred(tenant)
  local first = redis.call('ZRANGE', of('deferred', tenant.id), 0, 0, 'WITHSCORES')
  local at = tonumber(first[2] or '')
  if at == tenant.deferred_at then return end
  if at then
    redis.call('HSET', of('tenant', tenant.id), 'deferred_at', whole(at))
  else
    redis.call('HDEL', of('tenant', tenant.id), 'deferred_at')
  end
  tenant.deferred_at = at
end

-- When the tenant has a job to start: now (true), at an instant, or nil.
local function has_job(tenant)
  if redis.call('EXISTS', of('ready', tenant.id)) == 1 then return true end
  if not tenant.deferred_at then return nil end
  note_deferred(tenant) -- it may have been cancelled
  if tenant.deferred_at and tenant.deferred_at <= now then return true end
  return tenant.deferred_at
end

-- When it may start one: now (true), at an instant, or nil: somebody arranges it anew.
local function next_start(tenant)
  if tenant.gone or tenant.held or tenant.paused then return nil end
  if tenant.concurrency and running_of(tenant) >= tenant.concurrency then return nil end
  local at = has_job(tenant)
  if at and not tenant.known and keeper_until() then
    return math.max(at == true and now or at, keeper_until())
  end
  if at ~= true then return at end
  local wait = rate_wait(tenant)
  return wait == 0 or now + wait
end

-- Notes when a tenant's time comes. Who waits for work waits for the first of these times at most:
-- for an earlier one it must be woken, to wait anew.
local function come_back(tenant, at)
  local first = redis.call('ZRANGE', one_of('due'), 0, 0, 'WITHSCORES')
  if not first[2] or at < tonumber(first[2]) then tenant.awake = true end
  redis.call('ZADD', one_of('due'), whole(at), tenant.id)
end

-- Puts a tenant where it belongs: among the active, among those whose time comes, or nowhere (it has
-- no job, or waits for a slot or an operator, each of which arranges it anew).
local function arrange(tenant)
  local active, at = of('active', tenant.lane), next_start(tenant)
  if at == true then
    redis.call('ZREM', one_of('due'), tenant.id)
    if not redis.call('ZSCORE', active, tenant.id) then
      local tag = math.max(virtual_time(tenant.lane), tenant.finish)
      redis.call('ZADD', active, exact(tag), tenant.id)
      tenant.awake = true
    end
    return
  end
  redis.call('ZREM', active, tenant.id)
  if at then
    come_back(tenant, at)
  else
    redis.call('ZREM', one_of('due'), tenant.id)
  end
end

-- As `arrange`, after something that can only let a tenant start more.
local function offer(tenant)
  if not redis.call('ZSCORE', of('active', tenant.lane), tenant.id) then arrange(tenant) end
end

-- As `arrange`, of an active tenant that has been served and takes a new place.
local function requeue(tenant)
  local active, at = of('active', tenant.lane), next_start(tenant)
  if at == true then
    redis.call('ZADD', active, exact(math.max(virtual_time(tenant.lane), tenant.finish)), tenant.id)
    return
  end
  redis.call('ZREM', active, tenant.id)
  if at then come_back(tenant, at) end
end

-- Puts a job among those that wait for their time.
local function defer(tenant, job, run_at)
  redis.call('ZADD', of('deferred', tenant.id), whole(run_at), job)
  if not tenant.deferred_at or run_at < tenant.deferred_at then note_deferred(tenant) end
end

-- Jobs whose time has come, into the order of priorities: so many a call that no tenant's heap of
-- them holds up another's call, and then a few for every start, which is more than it takes. So only
-- of more than PROMOTED that come due at once may one start before another of a higher priority.
local PROMOTED, FEW = 500, 20
local promoted = 0
local function promote(tenant)
  if not tenant.deferred_at or tenant.deferred_at > now then return end
  local id = tenant.id
  local due = redis.call('ZRANGEBYSCORE', of('deferred', id), '-inf', whole(now), 'LIMIT', 0,
    math.max(PROMOTED - promoted, FEW))
  promoted = promoted + #due
  for _, job in ipairs(due) do
    redis.call('ZREM', of('deferred', id), job)
    local rank = redis.call('HGET', job_key(id, job), 'rank')
    if rank then redis.call('ZADD', of('ready', id), rank, job) end -- or somebody has removed it
  end
  note_deferred(tenant)
end

-- How long the tenant was kept from starting jobs, of which no job's time to expire is.
local function stopped_ms(tenant)
  return tenant.stopped_ms + (tenant.stopped_at and now - tenant.stopped_at or 0)
end

-- Writes what the call has changed, and wakes workers for who may start something. `served_lanes`:
-- of those the caller knows what is left.
local function save(served_lanes)
  for lane, time in pairs(times) do
    if time.changed then redis.call('HSET', one_of('clock'), lane, exact(time.value)) end
  end
  local lanes = {}
  for id, tenant in pairs(tenants) do
    if tenant.served then
      redis.call('HSET', of('tenant', id), 'finish', exact(tenant.finish), 'claims', tenant.claims)
      if tenant.finish_lane ~= tenant.lane then
        redis.call('HSET', of('tenant', id), 'finish_lane', tenant.lane)
      end
      rate_save(tenant)
    end
    if tenant.awake and not (served_lanes and served_lanes[tenant.lane]) then
      lanes[tenant.lane] = true
    end
  end
  for tier, counts in pairs(counted) do
    for what, by in pairs(counts) do
      redis.call('HINCRBY', one_of('counts'), tier .. ':' .. what, by)
    end
  end
  for lane in pairs(lanes) do wake(lane) end
end
