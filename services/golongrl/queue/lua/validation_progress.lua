return_expired()
local lost = lost_of(round())
if lost then
  return answer({ s = 'damaged', key = lost })
end
return answer({ s = 'ok', todo = call('LLEN', 'validation_todo'), leased = call('ZCARD', 'validation_leased'),
  done = call('SCARD', 'validation_done') })
