local r, problem = load()
if not r then
  return { problem or GONE, micros }
end
return { OK, micros, r.raw, r.expiry }
