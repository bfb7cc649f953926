-- A group of a taken batch that cannot be trained leaves it for good; the next `take` of the step replaces it. Only before
-- the step is finished: what was trained stays trained.
local function place_of(uid)
  for index, place in ipairs(call('LRANGE', 'batch:' .. args.step, 0, -1)) do
    if place == uid then
      return index - 1
    end
  end
end

touch()
if fenced() then
  return answer({ s = 'fenced' })
end
if args.step > S.taken or args.step <= S.committed then
  return answer({ s = 'out_of_order', v = S.v, taken = S.taken })
end
local place = place_of(args.uid)
if not place then
  return answer({ s = place_of(ASIDE .. args.uid) and 'ok' or 'unknown' })
end
if args.step <= S.v then
  return answer({ s = 'out_of_order', v = S.v, taken = S.taken })
end
local group = get(args.uid)
call('LSET', 'batch:' .. args.step, place, ASIDE .. args.uid)
set_open_places(args.step, open_places(args.step) + 1)
set('aside_streak', (S.aside_streak or 0) + 1)
call('HDEL', 'groups', args.uid)
tally('batched', -1)
call('HDEL', 'given_up', group.pos)
call('HDEL', 'tries', group.pos)
set('bytes', S.bytes - group.bytes)
count_routes(-(group.routes_bytes or 0))
call('SETRANGE', 'outcome', outcome_offset(group), 'A')
count('counts', 'set_aside')
set('aside_number', (S.aside_number or 0) + 1)
keep_aside(args.uid, { number = S.aside_number, step = args.step, worker = group.worker, reason = args.reason,
  bytes = group.bytes, routes = group.routes_bytes and routes_name(group), routes_bytes = group.routes_bytes,
  pos = group.pos, epoch = group.epoch, row = group.row, at = tonumber(redis.call('TIME')[1]) })
return answer({ s = 'ok' })
