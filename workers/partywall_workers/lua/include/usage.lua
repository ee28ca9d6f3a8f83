-- What tenants' jobs come to, by minute, in the same step as what is counted: the roll-up moves it on.
-- Times are microseconds, which is what sums; a clock of milliseconds makes each of them that coarse.
local COUNTS_KEPT = 30 * 86400 -- seconds, as usage.py has it
local metered = {}

-- Those whose ids begin with `_` are no customers.
local function meter(tenant, what, by)
  if by <= 0 or string.byte(tenant.id) == 95 then return end
  local meters = metered[tenant.id]
  if not meters then
    meters = {}
    metered[tenant.id] = meters
  end
  meters[what] = (meters[what] or 0) + by
end

-- `from` and `to`: milliseconds; a clock that was set back makes no time pass.
local function meter_time(tenant, what, from, to) meter(tenant, what, (to - from) * 1000) end

-- `rolled` is there while somebody rolls up: else counts would heap up for ever. It is the newest
-- minute that was taken away, and a clock that was set back must not open that again.
local function save_usage()
  if next(metered) == nil then return end
  local rolled = redis.call('GET', one_of('rolled'))
  if not rolled then return end
  local minute = whole(math.max(math.floor(now / 60000), tonumber(rolled) + 1)) .. '|jobs.'
  for id, meters in pairs(metered) do
    local key, begun = of('usage', id), false
    for what, by in pairs(meters) do
      begun = redis.call('HINCRBY', key, minute .. what, whole(by)) == by or begun
    end
    if begun then
      redis.call('SADD', one_of('metered'), id)
      redis.call('EXPIRE', key, COUNTS_KEPT)
    end
  end
end
