-- ARGV[2]: the packed result.
if not holds(args) then
  return answer({ s = 'ok', held = 0 })
end
end_row_with(args.row, ARGV[2])
return answer({ s = 'ok', held = 1 })
