local attempt, algorithm, fingerprint = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local lease, hold = tonumber(ARGV[4]), tonumber(ARGV[5])
local take_over, tell, no_new, seen = ARGV[6] == '1', ARGV[7] == '1', ARGV[8] == '1', ARGV[9]
local ACQUIRED, REPLAY, IS_BUSY, MISMATCH, INTERRUPTED, RETIRED, SPENT, FULL, LOOK = 1, 2, 3, 4, 5, 6, 7, 8, 9

local r, state, last, flags = load()
if not r and state then
  return { state, micros }
end

local function grant(next)
  -- Whether the progress that it hands on is whole, only the client can tell; before anything is written.
  if #next.content > 0 and next.check ~= seen then
    return { LOOK, micros, r.raw, r.expiry }
  end
  store(next)
  return { ACQUIRED, micros, next.raw, next.expiry }
end

local function after(token)
  return math.min(math.max(token + 1, micros), HIGHEST)
end

-- Nothing of what was there counts but its token, and whether somebody waits.
local function fresh(number)
  local next = { status = IN_PROGRESS, flags = r and r.flags or flags or 0, algorithm = algorithm,
    fingerprint = fingerprint, attempt = attempt, number = number,
    token = after(last or 0),
    limit = now + lease, forget = now + lease + hold }
  clear(next)
  return next
end

if not r then
  if no_new then
    return { FULL, micros }
  end
  return grant(fresh(1))
end

local is_own = r.attempt == attempt
local is_same = r.algorithm == algorithm and r.fingerprint == fingerprint
if state == 'retired' then
  if is_own then
    return { SPENT, micros }
  elseif tell then
    return { RETIRED, micros }
  end
  return grant(fresh(1))
elseif not is_same then
  return { MISMATCH, micros }
elseif state == 'completed' then
  return { REPLAY, micros, r.raw, r.expiry }
elseif is_own then
  if state ~= 'live' and state ~= 'lapsed' then
    return { SPENT, micros }
  end
  -- The grant that an earlier copy of this claim got. If that came late, others may have come and gone since
  -- its token was made.
  if not r.sequence then
    local remembered = struct.unpack('>I8', r.check)
    if remembered > 0 and r.forget - remembered - r.token / 1000 > GRACE / 2 then
      r.token = after(r.token)
    end
    r.check = NO_CHECK
  end
  r.limit = math.max(r.limit, now + lease)
  r.forget = math.max(r.forget, r.limit + hold)
  return grant(r)
elseif state == 'live' then
  return { IS_BUSY, micros, r.limit }
elseif state == 'released' then
  return grant(fresh(math.min(r.number + 1, 4294967295)))
elseif not take_over then
  return { INTERRUPTED, micros }
end

local next = fresh(math.min(r.number + 1, 4294967295))
next.previous = r.token
next.flags = next.flags + (state == 'lapsed' and LAPSED_BIT or GAVE_UP_BIT)
if r.sequence then
  next.flags = next.flags + PROGRESS_BIT
  -- Numbers count the saves of one attempt.
  next.sequence, next.content, next.check = string.rep('\0', 8), r.content, r.check
end
return grant(next)
