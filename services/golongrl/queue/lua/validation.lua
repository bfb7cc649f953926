-- The validation round: rows of the validation set to be answered by one policy version. At most one round at a time.
-- A row is in exactly one of `validation_todo`, `validation_leased` (by deadline; token beside it), `validation_done`
-- (with a `validation_result:ROW`, its size in the state's `bytes` and, to be taken off again, `validation_bytes`).
local MOST_LOSSES = 3

local function round()
  local flat, found = call('HGETALL', 'validation'), {}
  for i = 1, #flat, 2 do
    found[flat[i]] = flat[i + 1]
  end
  return found.version and found
end

local function is_of(open, version, lineage)
  return open and tonumber(open.version) == version and open.lineage == lineage
end

local function count_result(size)
  set('bytes', S.bytes + size)
  set('validation_bytes', (S.validation_bytes or 0) + size)
end

-- A row is in one of three keys, so a sum that is short means that one of them was lost.
local function lost_of(open)
  local there = call('LLEN', 'validation_todo') + call('ZCARD', 'validation_leased') + call('SCARD', 'validation_done')
  if there == tonumber(open and open.rows or 0) then
    return nil
  end
  for _, name in ipairs({ 'validation', 'validation_todo', 'validation_leased', 'validation_done' }) do
    if call('EXISTS', name) == 0 then
      return key(name)
    end
  end
end

local function clear_round()
  local open = round()
  for row = 0, (open and tonumber(open.rows) or 0) - 1 do
    call('UNLINK', 'validation_result:' .. row)
  end
  for _, name in ipairs({ '', '_todo', '_leased', '_tokens', '_lost', '_done' }) do
    call('UNLINK', 'validation' .. name)
  end
  count_result(-(S.validation_bytes or 0))
end

local function end_lease(row)
  call('ZREM', 'validation_leased', row)
  call('HDEL', 'validation_tokens', row)
end

local function end_row_with(row, result)
  end_lease(row)
  call('SADD', 'validation_done', row)
  call('SET', 'validation_result:' .. row, result)
  count_result(#result)
end

-- Back to the end of the list. A row that was `lost` too often is ended unscored: it may be what kills the engines.
local function return_row(row, lost, why)
  if lost and call('HINCRBY', 'validation_lost', row, 1) >= MOST_LOSSES then
    local reason = 'given up after ' .. MOST_LOSSES .. ' attempts, the last one: ' .. why
    end_row_with(row, cmsgpack.pack({ reason = reason }))
  else
    end_lease(row)
    call('RPUSH', 'validation_todo', row)
  end
end

local function return_expired()
  for _, row in ipairs(call('ZRANGEBYSCORE', 'validation_leased', '-inf', now())) do
    return_row(row, true, 'its worker was not heard of')
  end
end

local function holds(item)
  return call('HGET', 'validation_tokens', item.row) == item.token
end
