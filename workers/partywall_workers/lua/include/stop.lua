-- Keeps how long a tenant was paused or held. `before`: whether it was until this call.
local function note_stop(tenant, before)
  local after = tenant.paused or tenant.held ~= nil
  if after == before then return end
  local key = of('tenant', tenant.id)
  if after then
    redis.call('HSET', key, 'stopped_at', whole(now))
  else
    redis.call('HSET', key, 'stopped_ms', whole(stopped_ms(tenant)), 'resumed_at', whole(now))
    redis.call('HDEL', key, 'stopped_at')
  end
end
