-- args.keys are of a run that has lost its settings, or never had any: nobody can use them any more.
if call('EXISTS', 'settings') == 1 then
  return answer({ s = 'ok', removed = 0 })
end
local removed = 0
for _, name in ipairs(args.keys) do
  removed = removed + redis.call('UNLINK', name)
end
return answer({ s = 'ok', removed = removed })
