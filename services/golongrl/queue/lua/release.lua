-- args.failed: the attempt failed, which counts towards the row's last try.
local group = held(args.uid, args.token)
if not (group and group.state == 'leased') then
  return answer({ s = 'ok', held = 0 })
end
if args.failed then
  fail_try(args.uid, group, args.reason, args.detail)
else
  give_back(args.uid, group, 'released:' .. args.reason)
end
return answer({ s = 'ok', held = 1 })
