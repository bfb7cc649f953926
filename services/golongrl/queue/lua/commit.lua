touch()
if fenced() then
  return answer({ s = 'fenced' })
end
if args.step > S.v then
  return answer({ s = 'out_of_order', v = S.v, taken = S.taken })
end
commit_steps(args.step)
return answer({ s = 'ok' })
