-- Keeps a tenant from starting jobs, or lets it again. What runs goes on.
--
-- KEYS[1]  the queue
-- ARGV[1]  now in milliseconds, or ''
-- ARGV[2]  tenant
-- ARGV[3]  1: pause, 0: resume
-- returns  'done', or as enqueue.lua: 'gone', 'asked'
--- @include "keys"
--- @include "clock"
--- @include "rate"
--- @include "tenants"
--- @include "stop"

local tenant = tenant_of(ARGV[2])
if tenant.gone then return ARGV[3] == '1' and ask_for(tenant) or 'done' end
local key = of('tenant', tenant.id)
local before = tenant.paused or tenant.held ~= nil
tenant.paused = ARGV[3] == '1'
if tenant.paused then
  redis.call('HSET', key, 'paused', 1)
  redis.call('PERSIST', key)
else
  redis.call('HDEL', key, 'paused')
  if not redis.call('ZSCORE', one_of('busy'), tenant.id) then redis.call('EXPIRE', key, DAY) end
end
note_stop(tenant, before)
arrange(tenant)
save()
return 'done'
