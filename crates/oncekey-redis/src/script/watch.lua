-- Marks the record, so that the end of the attempt is told.
local r, state = load()
if not r then
  return { state or GONE, micros }
elseif state ~= 'completed' and state ~= 'retired' and not has(r.flags, WATCHED_BIT) then
  r.flags = r.flags + WATCHED_BIT
  store(r)
end
return { OK, micros }
