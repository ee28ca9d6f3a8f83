-- Tenants, each read once a call, and where they stand: `arrange` alone decides who is active.
--
-- Start-time fair queueing (Goyal, Vin, Cheng 1996): a tenant is served by the start tag of its next
-- job; the virtual time of a lane is the tag last served; a job of cost c moves its tenant's tag on
-- by c / weight; who becomes active starts at max(virtual time, its own last finish), so being idle
-- earns no credit and having been served no debt beyond that job.
local DAY = 86400

local FIELDS = {'policy', 'weight', 'concurrency', 'max_queued', 'rates', 'lane', 'held', 'paused',
  'finish', 'finish_lane', 'tier', 'features', 'stopped_at', 'stopped_ms'}

local tenants = {}
local times = {}
local keeper = nil

local function keeper_lives()
  if keeper == nil then keeper = redis.call('EXISTS', one_of('keeper')) == 1 end
  return keeper
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
    rings = {},
    counted = {},
  }
  -- Tags of one lane mean nothing in another.
  if v[10] ~= tenant.lane then tenant.finish = 0 end
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

local function count(tenant, what, by)
  tenant.counted[what] = (tenant.counted[what] or 0) + (by or 1)
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
  return not tenant.held and not tenant.paused and (tenant.known or not keeper_lives())
end

local function want_policy(tenant)
  if not tenant.known and redis.call('SADD', one_of('wanted'), tenant.id) == 1 then
    redis.call('LPUSH', one_of('keeper:wake'), 1)
    redis.call('LTRIM', one_of('keeper:wake'), 0, 0)
  end
end

-- Puts a tenant where it belongs: among the active, among those whose time comes, or nowhere (it has
-- no job, or waits for a slot, an operator or the sidecar, each of which arranges it anew).
-- `moved`: its tag has changed, so it takes a new place among the active.
local function arrange(tenant, moved)
  local active, id = of('active', tenant.lane), tenant.id
  local at = nil
  if may_start(tenant) and not (tenant.concurrency and running_of(tenant) >= tenant.concurrency) then
    local due = redis.call('EXISTS', of('ready', id)) == 1
    if not due then
      local first = redis.call('ZRANGE', of('deferred', id), 0, 0, 'WITHSCORES')
      if first[1] then
        at = tonumber(first[2])
        due = at <= now
      end
    end
    if due then
      local wait = rate_wait(tenant)
      if wait == 0 then
        if moved or not redis.call('ZSCORE', active, id) then
          local tag = math.max(virtual_time(tenant.lane), tenant.finish)
          redis.call('ZADD', active, exact(tag), id)
        end
        redis.call('ZREM', one_of('due'), id)
        tenant.awake = true
        return
      end
      at = now + wait
    end
  end
  redis.call('ZREM', active, id)
  if at then
    redis.call('ZADD', one_of('due'), whole(at), id)
  else
    redis.call('ZREM', one_of('due'), id)
  end
end

-- Jobs whose time has come, into the order of priorities. A few at a time: every start brings more
-- than it takes, and no tenant's heap of them holds up another's call.
local function promote(tenant)
  local id = tenant.id
  local due = redis.call('ZRANGEBYSCORE', of('deferred', id), '-inf', whole(now), 'LIMIT', 0, 20)
  for _, job in ipairs(due) do
    redis.call('ZREM', of('deferred', id), job)
    redis.call('ZADD', of('ready', id), redis.call('HGET', job_key(id, job), 'rank'), job)
  end
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
    if tenant.moved then
      redis.call('HSET', of('tenant', id), 'finish', exact(tenant.finish), 'finish_lane', tenant.lane)
    end
    rate_save(tenant)
    for what, by in pairs(tenant.counted) do
      redis.call('HINCRBY', of('tenant', id), what, by)
      redis.call('HINCRBY', one_of('counts'), (tenant.tier or '') .. ':' .. what, by)
    end
    if tenant.awake and not (served_lanes and served_lanes[tenant.lane]) then
      lanes[tenant.lane] = true
    end
  end
  for lane in pairs(lanes) do wake(lane) end
end
