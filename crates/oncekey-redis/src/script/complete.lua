-- The completed record, but for what only the stored one knows.
local made = ARGV[1]
local retention, hold, most, channel = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local r, answer = own(string.sub(made, 69, 84), (struct.unpack('>I8', made, 17)))
if not r then
  return answer
end
return finish(r, string.byte(made, 2), string.sub(made, 89), string.sub(made, 29, 36), retention, hold,
  most, channel)
