return_expired()
return answer({ s = 'ok', todo = call('LLEN', 'validation_todo'), leased = call('ZCARD', 'validation_leased'),
  done = call('SCARD', 'validation_done') })
