-- Up to args.count rows for an engine that holds exactly the round's weights. A lost reply costs one lease's length.
if differ(args.data, S.held_out) then
  return answer({ s = 'data' })
end
local rows, open = {}, round()
if is_of(open, args.version, args.lineage) and not wrong_round(open) then
  return_expired()
  for _, row in ipairs(call('ZRANGE', 'validation_todo', 1, args.count)) do
    call('ZREM', 'validation_todo', row)
    call('ZADD', 'validation_leased', now() + S.lease_ms, row)
    call('HSET', 'validation_tokens', row, row .. ':' .. args.random)
    rows[#rows + 1] = tonumber(row)
  end
end
return answer({ s = 'ok', rows = rows })
