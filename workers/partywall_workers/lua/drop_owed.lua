-- Drops what is owed to a tenant that was erased, of some debts at a time.
--
-- KEYS[1]  the queue
-- ARGV[1]  now in milliseconds, or ''
-- ARGV[2]  tenant
-- ARGV[3]  how many debts to look at
-- returns  how many were dropped
--
-- The list goes round: as many as it has are to be looked at. Their order says nothing, and of two
-- that pay and drop at once each finds what the other has not taken.
--- @include "keys"

local owed, dropped = one_of('owed'), 0
for _ = 1, tonumber(ARGV[3]) do
  local debt = redis.call('RPOP', owed)
  if not debt then break end
  local read, told = pcall(cjson.decode, debt) -- anybody may have written it
  if read and type(told) == 'table' and told.tenant == ARGV[2] then
    dropped = dropped + 1
  else
    redis.call('LPUSH', owed, debt)
  end
end
return dropped
