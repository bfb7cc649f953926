-- The end of a run: from here on it is not set up, and its other keys are leftovers.
if call('TYPE', 'state').ok ~= 'hash' then
  call('DEL', 'state')
end
touch()
return answer({ s = 'ok', existed = call('DEL', 'settings') })
