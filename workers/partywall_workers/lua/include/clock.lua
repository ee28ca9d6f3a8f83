-- Milliseconds since the epoch by this server's clock; ARGV[1] in its place for tests.
local function clock()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local now = clock()

-- Lua writes 15 digits of a number by itself; ranks and tags need all of them.
local function whole(number) return string.format('%.0f', number) end
local function exact(number) return string.format('%.17g', number) end
