-- Where one row stands, in a bounded number of look-ups.
local function last_failure()
  local packed = call('HGET', 'failures', args.uid)
  return packed and cmsgpack.unpack(packed) or {}
end

if args.epoch >= #S.epoch_ends or args.row >= S.table_rows then
  return answer({ s = 'unknown' })
end
local group = get(args.uid)
if group then
  group.token, group.request = nil, nil
  group.task = S.task_names[group.task + 1]
  return answer({ s = 'ok', state = group.state, meta = group })
end
local packed = call('HGET', 'set_aside', args.uid)
if packed then
  return answer({ s = 'ok', state = 'set_aside', meta = cmsgpack.unpack(packed) })
end
local offset = outcome_offset(args)
local mark = call('GETRANGE', 'outcome', offset, offset)
local states = { T = 'trained', R = 'rejected', D = 'returned', ['\0'] = 'unread' }
if not states[mark] then
  return answer({ s = 'unknown' })
end
return answer({ s = 'ok', state = states[mark], meta = mark == 'R' and last_failure() or nil })
