if not holds(args) then
  return answer({ s = 'ok', held = 0 })
end
return_row(args.row, args.lost, args.reason)
return answer({ s = 'ok', held = 1 })
