touch()
if fenced() then
  return answer({ s = 'fenced' })
end
if args.step > S.v + 1 or args.step > S.taken then
  return answer({ s = 'out_of_order', v = S.v, taken = S.taken })
end
if args.step == S.v + 1 then
  set('v', args.step)
end
return answer({ s = 'ok' })
