local attempt, token, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local sequence, content, check, most = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])

local r, state = own(attempt, token)
if not r then
  return state
elseif state ~= 'live' and state ~= 'lapsed' then
  return { LOST, micros }
end
local hold = r.forget - r.limit
r.limit = math.max(r.limit, now + lease)
r.forget = math.max(r.forget, r.limit + hold)
if not r.sequence then
  -- Whoever renews was told of the grant, which so did not come late.
  r.check = NO_CHECK
end

local function is_later(one, other)
  local high, low = struct.unpack('>I4I4', one)
  local other_high, other_low = struct.unpack('>I4I4', other)
  return high > other_high or high == other_high and low > other_low
end

if sequence ~= '' and is_later(sequence, r.sequence or string.rep('\0', 8)) then
  if #content > most then
    return { TOO_LARGE, micros }
  end
  if not r.sequence then
    r.flags = r.flags + PROGRESS_BIT
  end
  r.sequence, r.content, r.check = sequence, content, check
end
store(r)
return { OK, micros }
