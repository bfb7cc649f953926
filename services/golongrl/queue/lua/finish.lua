touch()
if fenced() then
  return answer({ s = 'fenced' })
end
if args.step > S.v + 1 or args.step > S.taken then
  return answer({ s = 'out_of_order', v = S.v, taken = S.taken })
end
if args.step == S.v + 1 then
  set('v', args.step)
  set('aside_streak', 0)
  -- Trained without them: a replay must be, too.
  set_open_places(args.step, 0)
end
return answer({ s = 'ok' })
