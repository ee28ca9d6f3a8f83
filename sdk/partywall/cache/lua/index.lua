-- What the scripts that change the indexes have in common; after clock.lua.

local EXPIRED_AT_ONCE = 100
local SLACK = 8
local VIRTUAL_LIFE = 3600000

local function count()
  return call('ZCOUNT', expiry, now_ms, '+inf')
end

-- Takes members out of both indexes.
local function forget(members)
  call('ZREM', expiry, unpack(members))
  call('ZREM', used, unpack(members))
end

-- Takes members' values away, and the members out of both indexes.
local function drop(members)
  local names = {}
  for place, member in ipairs(members) do
    names[place] = values .. member
  end
  call('UNLINK', unpack(names))
  forget(members)
end

-- Some of what has expired leaves: a bounded number, so that no script is long. It is done before
-- each key that is added, so it keeps up.
local function sweep()
  local members = call('ZRANGEBYSCORE', expiry, '-inf', now_ms - 1, 'LIMIT', 0, EXPIRED_AT_ONCE)
  if #members > 0 then
    drop(members)
  end
end

-- The indexes outlive the key that lives longest, by at most an eighth of what it has to live, so
-- that not every set must prolong them. Virtual time runs apart from the server's: there an hour
-- stands in.
local function keep()
  local last = call('ZRANGE', expiry, -1, -1, 'WITHSCORES')[2]
  if not last then
    call('UNLINK', used)
    return
  end
  for _, index in ipairs({ expiry, used }) do
    if last == 'inf' then
      call('PERSIST', index)
    elseif virtual then
      call('PEXPIRE', index, VIRTUAL_LIFE)
    else
      call('PEXPIREAT', index, last + math.max(1, math.ceil((last - now_ms) / SLACK)))
    end
  end
end
