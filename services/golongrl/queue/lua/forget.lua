-- The end of a run: from here on it is not set up, and its other keys are leftovers.
touch()
return answer({ s = 'ok', existed = call('DEL', 'settings') })
