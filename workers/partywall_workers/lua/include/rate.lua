-- How many jobs of a tenant may start in a window: the sliding window of docs/design.md, without
-- leases. A window is parted into 32 sub-buckets; the sum runs over the present one and the 32
-- before it, so no interval of the window's length ever holds more starts than the quota.
-- Q:starts:T: window in seconds -> "bucket:count bucket:count ..." of those that are not yet past.
local BUCKETS = 32

local function starts_of(tenant, window)
  local rings = tenant.rings
  if rings[window] then return rings[window] end
  local width = window * 1000 / BUCKETS
  local ring = {width = width, counts = {}, order = {}, sum = 0, present = math.floor(now / width)}
  local text = redis.call('HGET', of('starts', tenant.id), window)
  if text then
    for bucket, count in string.gmatch(text, '(%d+):(%d+)') do
      bucket, count = tonumber(bucket), tonumber(count)
      -- A clock stepped back must not reopen the past.
      if bucket > ring.present then ring.present = bucket end
      ring.order[#ring.order + 1] = bucket
      ring.counts[bucket] = count
    end
    local live = {}
    for _, bucket in ipairs(ring.order) do
      if bucket >= ring.present - BUCKETS then
        live[#live + 1] = bucket
        ring.sum = ring.sum + ring.counts[bucket]
      end
    end
    ring.order = live
  end
  rings[window] = ring
  return ring
end

-- Milliseconds until one more job may start; 0: now.
local function rate_wait(tenant)
  local wait = 0
  for _, rate in ipairs(tenant.rates) do
    local ring = starts_of(tenant, rate.window)
    local left = ring.sum
    for _, bucket in ipairs(ring.order) do
      if left < rate.quota then break end
      left = left - ring.counts[bucket]
      wait = math.max(wait, math.ceil((bucket + BUCKETS + 1) * ring.width) - now)
    end
    -- A quota of nothing never lets one start; ask again when the window is over.
    if rate.quota < 1 then wait = math.max(wait, rate.window * 1000) end
  end
  return wait
end

local function rate_charge(tenant)
  for _, rate in ipairs(tenant.rates) do
    local ring = starts_of(tenant, rate.window)
    if ring.order[#ring.order] ~= ring.present then
      ring.order[#ring.order + 1] = ring.present
      ring.counts[ring.present] = 0
    end
    ring.counts[ring.present] = ring.counts[ring.present] + 1
    ring.sum = ring.sum + 1
    ring.changed = true
  end
end

local function rate_save(tenant)
  local longest = 0 -- seconds
  for window, ring in pairs(tenant.rings) do
    if ring.changed then
      local words = {}
      for _, bucket in ipairs(ring.order) do
        words[#words + 1] = whole(bucket) .. ':' .. ring.counts[bucket]
      end
      redis.call('HSET', of('starts', tenant.id), window, table.concat(words, ' '))
    end
    longest = math.max(longest, window)
  end
  if longest > 0 then redis.call('EXPIRE', of('starts', tenant.id), 2 * longest) end
end
