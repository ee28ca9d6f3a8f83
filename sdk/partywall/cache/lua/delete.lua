-- Deletes a key.
--
-- KEYS[1], KEYS[2], ARGV[1]    as in clock.lua, which comes before
-- KEYS[3]    the value's name
-- returns    1 if it lived, else 0

local member = member_of(KEYS[3])
local lived = lives(member)
drop({ member })
sweep()
keep()
return lived and 1 or 0
