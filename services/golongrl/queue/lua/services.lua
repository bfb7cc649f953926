local time = redis.call('TIME')
local current = time[1] * 1000 + math.floor(time[2] / 1000)
local flat, found = call('HGETALL', 'services'), {}
for i = 1, #flat, 2 do
  local seen = cmsgpack.unpack(flat[i + 1])
  if current - seen.at > seen.ttl then
    call('HDEL', 'services', flat[i])
  else
    found[#found + 1] = { name = flat[i], fields = seen.fields, age = current - seen.at, ttl = seen.ttl }
  end
end
return answer({ s = 'ok', found = found })
