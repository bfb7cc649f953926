touch()
if fenced() then
  return answer({ s = 'fenced' })
end
set('stop_reason', args.reason)
set('stop_detail', args.detail)
return answer({ s = 'ok' })
