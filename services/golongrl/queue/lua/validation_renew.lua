return_expired()
local kept = {}
for i, item in ipairs(args.items) do
  kept[i] = holds(item) and 1 or 0
  if kept[i] == 1 then
    call('ZADD', 'validation_leased', now() + S.lease_ms, item.row)
  end
end
return answer({ s = 'ok', kept = kept })
