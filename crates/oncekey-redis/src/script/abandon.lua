local attempt, token, not_started = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local hold, channel = tonumber(ARGV[4]), ARGV[5]

local r, state = own(attempt, token)
if not r then
  return state
end
local in_progress = state == 'live' or state == 'lapsed'
if not_started and not r.sequence and (in_progress or state == 'gave up') then
  return release(r, hold, channel)
elseif state == 'gave up' or state == 'released' and not_started then
  return { OK, micros }
elseif in_progress then
  -- Whoever saved progress did something, whatever it says.
  r.status, r.limit = GAVE_UP, r.forget
  store(r)
  ended(r, channel)
  return { OK, micros }
end
return { LOST, micros }
