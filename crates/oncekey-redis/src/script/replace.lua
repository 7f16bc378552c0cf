-- The owner knows the very bytes of its record, if nothing happened since its claim. As `SET .. IFEQ`, for
-- servers that do not know it.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return false
