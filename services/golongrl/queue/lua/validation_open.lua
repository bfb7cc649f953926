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
local continues = is_of(open, args.version, args.lineage) and tonumber(open.rows) == args.rows
if not continues or wrong_round(open) or not results_are_whole() then
  clear_round(args.rows)
  begin_round(args.version, args.lineage, args.rows)
end
return answer({ s = 'ok' })
