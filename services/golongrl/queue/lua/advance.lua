-- Tests only (manual_clock): time passes, or (args.jump) the server's clock is set.
set('manual_wall', S.manual_wall + args.ms)
if not args.jump then
  set('wall', S.wall + args.ms)
  set('clock', S.clock + args.ms)
end
return answer({ s = 'ok' })
