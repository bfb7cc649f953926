touch()
if fenced() then
  return answer({ s = 'fenced' })
end
clear_round()
return answer({ s = 'ok' })
