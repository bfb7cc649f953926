local open = round()
local wrong = wrong_round(open)
if wrong then
  return answer(wrong)
end
if not open then
  return answer({ s = 'ok', todo = 0, leased = 0, done = 0, trailer = '' })
end
return_expired()
return answer({ s = 'ok', todo = size('validation_todo'), leased = size('validation_leased'),
  done = call('SCARD', 'validation_done') - 1, trailer = trailer(FIRST_MARK) })
