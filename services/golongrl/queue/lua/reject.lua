local group = held(args.uid, args.token)
if group and group.state == 'leased' then
  end_row(args.uid, group, 'R')
  count('rejected', args.reason)
  if args.reason == 'all_equal' then
    set('streak', S.streak + 1)
  end
  return answer({ s = 'ok', held = 1 })
end
local offset = args.epoch * S.table_rows + args.row
return answer({ s = 'ok', held = call('GETRANGE', 'outcome', offset, offset) == 'R' and 1 or 0 })
