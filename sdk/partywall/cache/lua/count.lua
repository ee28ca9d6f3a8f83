-- Counts a tenant's live keys, and changes nothing.
--
-- KEYS[1], KEYS[2], ARGV[1]    as in clock.lua, which comes before
-- returns    how many keys live

return call('ZCOUNT', expiry, now_ms, '+inf')
