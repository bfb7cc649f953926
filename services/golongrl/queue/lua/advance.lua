-- Tests only (manual_clock): time moves when told to.
set('clock', S.clock + args.ms)
return answer({ s = 'ok', clock = S.clock })
