-- The body waits under `staged:TOKEN` (sent just before, on the same connection); RENAME puts it in place.
local staged = 'staged:' .. args.token
local group = held(args.uid, args.token)
if not group then
  call('UNLINK', staged)
  return answer({ s = 'stale' })
end
if group.state ~= 'leased' then
  call('UNLINK', staged)
  return answer({ s = 'duplicate' })
end
if args.lowest_version < group.engine_version then
  call('UNLINK', staged)
  give_back(args.uid, group, 'engine_restarted')
  return answer({ s = 'returned' })
end
if args.highest_version > S.v + 1 then
  call('UNLINK', staged)
  fail_try(args.uid, group, 'invalid', 'tokens of version ' .. args.highest_version .. ', newer than any: ' .. S.v + 1)
  return answer({ s = 'invalid' })
end
-- From 2^63 on a number arrives as a negative one.
if args.routes_bytes < 0 or args.routes_bytes > most_routes() then
  call('UNLINK', staged)
  fail_try(args.uid, group, 'invalid', string.format('routes of %.0f bytes, more than any group has: %.0f',
    args.routes_bytes, most_routes()))
  return answer({ s = 'invalid' })
end
local bytes = call('STRLEN', staged)
if bytes == 0 then
  return answer({ s = 'no_body' })
end
redis.call('RENAME', key(staged), key('body:' .. args.uid))
call('PERSIST', 'body:' .. args.uid)
call('ZREM', 'leased', args.uid)
call('ZREM', 'deadlines', args.uid)
call('HDEL', 'requests', group.request)
group.state, group.phase, group.ready_at = 'ready', 'ready', now()
group.bytes, group.lowest_version = bytes, args.lowest_version
group.routes_bytes = args.routes_bytes > 0 and args.routes_bytes or nil
put(args.uid, group)
call('ZADD', 'ready', group.seq, args.uid)
set('bytes', S.bytes + bytes)
set('largest', math.max(S.largest, bytes))
if args.routes_bytes > 0 then
  count_routes(args.routes_bytes)
  set('largest_routes', math.max(S.largest_routes or 0, args.routes_bytes))
end
set('streak', 0)
set('failed_streak', 0)
count('counts', 'accepted')
return answer({ s = 'accepted' })
