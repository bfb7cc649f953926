local offset = args.epoch * S.table_rows + args.row
local group = get(args.uid)
if group then
  group.token, group.request = nil, nil
  group.task = S.task_names[group.task + 1]
  return answer({ s = 'ok', state = group.state, meta = group })
end
local mark = call('GETRANGE', 'outcome', offset, offset)
if mark == 'T' or mark == 'R' then
  return answer({ s = 'ok', state = mark == 'T' and 'trained' or 'rejected' })
end
for _, pos in ipairs(call('ZRANGE', 'returned', 0, -1)) do
  local epoch, row = row_at(tonumber(pos))
  if epoch == args.epoch and row == args.row then
    return answer({ s = 'ok', state = 'returned' })
  end
end
for pos = S.cursor, S.row_count - 1 do
  local epoch, row = row_at(pos)
  if epoch == args.epoch and row == args.row then
    return answer({ s = 'ok', state = 'unread' })
  end
end
return answer({ s = 'unknown' })
