-- A record, as `layout.rs` writes and reads it. Times are milliseconds since 1970, by the server's clock.
-- The key's own expiry tells when it is forgotten; the record says how long before that its lease or its
-- retention ends. So a client that knows no time can write one with `SET .. PX`.

local VERSION, SMALLEST = 1, 88
local IN_PROGRESS, GAVE_UP, RELEASED, COMPLETED, DIGEST, FORGOTTEN = 1, 2, 3, 4, 5, 6
local LAPSED_BIT, GAVE_UP_BIT, PROGRESS_BIT, WATCHED_BIT = 1, 2, 4, 8
local HIGHEST = 9007199254740991
local NO_CHECK = string.rep('\0', 8)
-- How long a key outlives its record, at least, so that tokens go up.
local GRACE = 60000
local OK, LOST, GONE, COMPARE, BUSY, TOO_LARGE = 1, 2, 3, 4, 5, 6
local CORRUPT, NEWER = 20, 21

local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)

local function has(flags, bit)
  return flags % (2 * bit) >= bit
end

-- Seven words at a time, since a table for them costs more than all the rest.
local function mix(total, a, b, c, d, e, f, g)
  total = (total * 1000003 + a) % 4294967291
  total = (total * 1000003 + b) % 4294967291
  total = (total * 1000003 + c) % 4294967291
  total = (total * 1000003 + d) % 4294967291
  total = (total * 1000003 + e) % 4294967291
  total = (total * 1000003 + f) % 4294967291
  return (total * 1000003 + g) % 4294967291
end

-- The sum of the first `length` bytes, which are whole words.
local function sum(raw, length)
  local total, at = 1, 1
  while at + 27 <= length do
    total = mix(total, struct.unpack('>I4I4I4I4I4I4I4', raw, at))
    at = at + 28
  end
  while at < length do
    total = (total * 1000003 + (struct.unpack('>I4', raw, at))) % 4294967291
    at = at + 4
  end
  return total
end

-- The fields of `raw`, or nothing and why.
local function decode(raw)
  local version = string.byte(raw, 1)
  if version and version ~= VERSION then
    return nil, NEWER
  end
  if #raw < SMALLEST then
    return nil, CORRUPT
  end
  local r = {}
  local extra, tail, length
  version, r.status, r.flags, r.algorithm, extra, tail, r.number, r.token, length =
    struct.unpack('>BBBBI2I6I4I8I4', raw)
  local at = 85
  local lapsed, gave_up = has(r.flags, LAPSED_BIT), has(r.flags, GAVE_UP_BIT)
  if lapsed or gave_up then
    at = at + 8
  end
  local sequence_at = at
  if has(r.flags, PROGRESS_BIT) then
    at = at + 8
  end
  if #raw ~= at + 3 + length or struct.unpack('>I4', raw, at) ~= sum(raw, at - 1)
    or r.status < IN_PROGRESS or r.status > FORGOTTEN or r.token > HIGHEST or lapsed and gave_up then
    return nil, CORRUPT
  end
  r.check = string.sub(raw, 29, 36)
  r.fingerprint = string.sub(raw, 37, 68)
  r.attempt = string.sub(raw, 69, 84)
  if sequence_at > 85 then
    r.previous = struct.unpack('>I8', raw, 85)
    if r.previous > HIGHEST then
      return nil, CORRUPT
    end
  end
  if at > sequence_at then
    r.sequence = string.sub(raw, sequence_at, at - 1)
  end
  r.content = string.sub(raw, at + 4)
  local expiry = redis.call('PEXPIRETIME', KEYS[1])
  if expiry < 0 then
    return nil, CORRUPT
  end
  r.forget = expiry + 1 - extra
  r.limit = expiry + 1 - tail
  r.raw = raw
  r.expiry = expiry
  return r
end

-- The record, its state and its last token; or nothing and why. What is forgotten is only a token, and
-- whether somebody waits.
local function load()
  local raw = redis.pcall('GET', KEYS[1])
  if raw == false then
    return nil, nil
  elseif type(raw) ~= 'string' then
    return nil, CORRUPT
  end
  local r, problem = decode(raw)
  if not r then
    return nil, problem
  end
  if r.status == FORGOTTEN or now >= r.forget then
    return nil, nil, r.token, r.flags
  elseif r.status == IN_PROGRESS then
    return r, now < r.limit and 'live' or 'lapsed', r.token
  elseif r.status == GAVE_UP then
    return r, 'gave up', r.token
  elseif r.status == RELEASED then
    return r, 'released', r.token
  end
  return r, now < r.limit and 'completed' or 'retired', r.token
end

local function store(r)
  local finish = math.max(r.forget, now + GRACE)
  local head = struct.pack('>BBBBI2I6I4I8I4', VERSION, r.status, r.flags, r.algorithm,
    finish - r.forget, finish - r.limit, r.number, r.token, #r.content)
    .. r.check .. r.fingerprint .. r.attempt
  if r.previous then
    head = head .. struct.pack('>I8', r.previous)
  end
  if r.sequence then
    head = head .. r.sequence
  end
  r.raw = head .. struct.pack('>I4', sum(head, #head)) .. r.content
  r.expiry = finish - 1
  redis.call('SET', KEYS[1], r.raw, 'PXAT', r.expiry)
end

-- Nothing of it is left but whether somebody waits.
local function clear(r)
  r.flags = has(r.flags, WATCHED_BIT) and WATCHED_BIT or 0
  r.previous, r.sequence, r.content, r.check = nil, nil, '', NO_CHECK
end

-- Tells those who wait. That it may not be told is no reason to fail.
local function ended(r, channel)
  if has(r.flags, WATCHED_BIT) then
    redis.pcall('PUBLISH', channel, KEYS[1])
  end
end

local function release(r, hold, channel)
  clear(r)
  r.status, r.forget, r.limit = RELEASED, now + hold, now + hold
  store(r)
  ended(r, channel)
  return { OK, micros }
end

-- Records a result, unless there is one. Whether an old result is the same, the caller finds out.
local function finish(r, status, content, check, retention, hold, most, channel)
  if r.status == COMPLETED or r.status == DIGEST then
    if r.status == status and r.content == content then
      return { OK, micros }
    end
    return { COMPARE, micros, r.raw, r.expiry }
  end
  if #content > most then
    return { TOO_LARGE, micros }
  end
  clear(r)
  r.status, r.content, r.check = status, content, check
  r.limit = now + retention
  r.forget = r.limit + hold
  store(r)
  ended(r, channel)
  return { OK, micros }
end

-- The record if its last grant is this one; or nothing and the answer.
local function own(attempt, token)
  local r, state = load()
  if not r then
    return nil, { state or GONE, micros }
  elseif r.attempt ~= attempt or r.token ~= token then
    return nil, { LOST, micros }
  end
  return r, state
end

-- The record if it is of the attempt that an operator means; or nothing and the answer.
local function expected(by, value)
  local r, state = load()
  if not r then
    return nil, { state or GONE, micros }
  elseif by == 'attempt' and r.attempt ~= value or by == 'token' and r.token ~= tonumber(value) then
    return nil, { LOST, micros }
  end
  return r, state
end
