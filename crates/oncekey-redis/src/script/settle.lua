local status, content, check = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local retention, hold, most, channel = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]

local r, state = expected(ARGV[1], ARGV[2])
if not r then
  return state
elseif state == 'live' then
  return { BUSY, micros }
elseif status ~= 0 then
  return finish(r, status, content, check, retention, hold, most, channel)
elseif state == 'lapsed' or state == 'gave up' then
  return release(r, hold, channel)
end
return { state == 'released' and OK or LOST, micros }
