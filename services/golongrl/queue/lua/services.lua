local time = redis.call('TIME')
local current = time[1] * 1000 + math.floor(time[2] / 1000)
local flat, found = call('HGETALL', 'services'), {}
for i = 1, #flat, 2 do
  local seen = cmsgpack.unpack(flat[i + 1])
  local age = current - seen.at
  -- Also those that are ahead of the clock, which was set back, or of another run: whoever is there says so again in a moment.
  if age > seen.ttl or age < -CLOCK_STEP_MS or seen.run ~= PREFIX then
    call('HDEL', 'services', flat[i])
  else
    local service, id = string.match(flat[i], '^([^/]*)/(.*)$')
    found[#found + 1] = { service = service, id = id, fields = seen.fields, age_s = math.max(age, 0) / 1000,
      ttl_s = seen.ttl / 1000 }
  end
end
return answer({ s = 'ok', found = found })
