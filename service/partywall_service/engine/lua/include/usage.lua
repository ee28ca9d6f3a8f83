-- Counts of what tenants do: a hash a tenant, of fields `minute|meter`, until the roll-up takes them.
--
-- The script that includes this says `now`, in microseconds, `call` and `floor`.
--
-- A count goes into the minute of the write, so a minute that is over does not change any more, but
-- for a clock that is set back: where the roll-up has been, `rolled` says how far, and what comes
-- after counts as of the minute that follows.

-- Seconds after which counts that no roll-up has fetched are given up.
local COUNTS_KEPT = 30 * 86400

local minute = floor(now / 60000000)
local here = string.format('%d|', minute)

local function rolled_up_to(shard)
  return tonumber(call('GET', shard .. ':rolled') or '-1')
end

-- The roll-up must know of a tenant that has counts.
local function enlist(key, shard, tenant)
  call('SADD', shard .. ':metered', tenant)
  call('EXPIRE', shard .. ':metered', COUNTS_KEPT)
  call('EXPIRE', key, COUNTS_KEPT)
end

-- A field that was not there: the roll-up may have been here before.
local function begun(key, meter, n)
  local shard, tenant = string.match(key, '^(.-{s%d+}:)(.+):usage$')
  local rolled = rolled_up_to(shard)
  if minute <= rolled then
    call('HDEL', key, here .. meter)
    call('HINCRBY', key, string.format('%d|', rolled + 1) .. meter, n)
  end
  enlist(key, shard, tenant)
end

local function add_count(key, meter, n)
  if call('HINCRBY', key, here .. meter, n) == n then
    begun(key, meter, n)
  end
end
