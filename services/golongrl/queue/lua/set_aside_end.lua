-- A person decides: args.retry deals the row again, else it is rejected.
touch()
local record = aside(args.uid)
if not record then
  return answer({ s = 'ok', held = 0 })
end
if args.retry then
  end_aside(args.uid, record, 'D')
  call('ZADD', 'returned', record.pos, record.pos)
  count('redone', 'set_aside')
else
  drop_aside(args.uid, record)
end
return answer({ s = 'ok', held = 1 })
