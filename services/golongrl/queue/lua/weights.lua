-- The weights in force. Engines ask every moment, so of all keys only theirs is looked at; `unusable` says what is wrong.
if not load_state() then
  return answer({ s = 'ok' })
end
if S.format ~= FORMAT or call('GETRANGE', 'weights', -TRAILER, -1) ~= trailer(4) then
  return answer(unusable())
end
return answer({ s = 'ok', weights = weights() })
