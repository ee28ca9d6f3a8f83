-- Says whether a key lives, and changes nothing: it counts as no use.
--
-- KEYS[1], KEYS[2], ARGV[1]    as in clock.lua, which comes before
-- KEYS[3]    the value's name
-- returns    1 if it lives, else 0

return lives(member_of(KEYS[3])) and call('EXISTS', KEYS[3]) or 0
