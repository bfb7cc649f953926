local group = held(args.uid, args.token)
if group and group.state == 'leased' then
  give_back(args.uid, group, 'released:' .. args.reason)
  return answer({ s = 'ok', held = 1 })
end
return answer({ s = 'ok', held = 0 })
