-- Presence of processes; needs no run.
local time = redis.call('TIME')
call('HSET', 'services', args.service .. '/' .. args.id, cmsgpack.pack({ run = PREFIX, fields = args.fields,
  at = time[1] * 1000 + math.floor(time[2] / 1000), ttl = args.ttl }))
return answer({ s = 'ok' })
