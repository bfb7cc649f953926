if not load_state() then
  return answer({ s = 'not_set_up' })
end
local wrong = unusable()
if wrong then
  return answer(wrong)
end
