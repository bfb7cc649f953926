-- Which of the commands that the scripts call this user may not run: each is tried, with as many arguments as it takes at
-- least, on a key of text that expires at once and where none of them does harm. args.commands: {name, arguments} each.
local denied = {}
for _, command in ipairs(args.commands) do
  local words = {}
  for i = 1, command[2] do
    words[i] = key('probe')
  end
  redis.pcall('SET', key('probe'), '', 'PX', 1)
  local found = redis.pcall(command[1], unpack(words))
  local refused = type(found) == 'table' and found.err or ''
  for _, words_of_a_server in ipairs({ 'ACL failure', 'NOPERM', 'The user executing the script' }) do
    if string.find(refused, words_of_a_server, 1, true) then
      denied[#denied + 1] = command[1]
      break
    end
  end
end
redis.pcall('DEL', key('probe'))
return answer({ s = 'ok', denied = denied })
