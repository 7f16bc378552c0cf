local force, channel = ARGV[3] == '1', ARGV[4]

local r, state = expected(ARGV[1], ARGV[2])
if not r then
  local problem = state[1]
  if ARGV[1] ~= 'any' or problem ~= CORRUPT and problem ~= NEWER then
    return state
  end
  -- Nobody can tell who waits for what cannot be understood.
  r = { flags = WATCHED_BIT, token = micros }
elseif state == 'live' and not force then
  return { BUSY, micros }
end
-- A token is left for a while, so that the next is higher; and who waits is told of the next one's end, too.
local left = { status = FORGOTTEN, flags = r.flags, algorithm = 0, number = 0, token = r.token,
  fingerprint = string.rep('\0', 32), attempt = string.rep('\0', 16), forget = now, limit = now }
clear(left)
store(left)
ended(r, channel)
return { OK, micros }
