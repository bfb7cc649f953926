-- Up to args.count rows for an engine that holds exactly the round's weights. A lost reply costs one lease's length.
if differ(args.data, S.held_out) then
  return answer({ s = 'data' })
end
return_expired()
local rows = {}
if is_of(round(), args.version, args.lineage) then
  while #rows < args.count do
    local row = call('LPOP', 'validation_todo')
    if not row then
      break
    end
    call('ZADD', 'validation_leased', now() + S.lease_ms, row)
    call('HSET', 'validation_tokens', row, row .. ':' .. args.random)
    rows[#rows + 1] = tonumber(row)
  end
end
return answer({ s = 'ok', rows = rows })
