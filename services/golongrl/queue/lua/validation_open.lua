-- Begin the round of the announced weights; the same round continues, whoever began it, unless a part of it was lost.
touch()
if fenced() then
  return answer({ s = 'fenced' })
end
local announced = weights()
if not announced or announced.version ~= args.version or announced.lineage ~= args.lineage then
  return answer({ s = 'out_of_order', v = S.v, taken = S.taken })
end
local open = round()
if not (is_of(open, args.version, args.lineage) and tonumber(open.rows) == args.rows) or lost_of(open) then
  clear_round()
  call('HSET', 'validation', 'version', args.version, 'lineage', args.lineage, 'rows', args.rows)
  for row = 0, args.rows - 1 do
    call('RPUSH', 'validation_todo', row)
  end
end
return answer({ s = 'ok' })
