-- A new learner fences the old one. v stays: what it replays still counts, and nothing is leased in its place.
if args.step < S.committed or args.step > S.v then
  return answer({ s = 'out_of_order', v = S.v, committed = S.committed })
end
if not of_one_moment() then
  return torn()
end
commit_steps(args.step)
set('fence', args.fence)
set('streak', 0)
set('failed_streak', 0)
set('aside_streak', 0)
set('stop_reason', '')
touch()
return answer({ s = 'ok', v = S.v, committed = S.committed })
