-- The owner knows the very bytes of its record, if nothing happened since its claim.
if ARGV[1] ~= '' and #ARGV[2] <= tonumber(ARGV[6]) and redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
