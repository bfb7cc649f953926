-- The validation round: rows of the validation set to be answered by one policy version. At most one round at a time.
-- A row is in exactly one of `validation_todo` (in the order to lease them), `validation_leased` (by deadline; its token in
-- `validation_tokens`) and `validation_done` (with a `validation_result:ROW`, its size in the state's `bytes` and, to be
-- taken off again, `validation_bytes`). Each of these keys has a mark as the run's others, for as long as there is a round.
local MOST_LOSSES = 3
-- Above the marks of the run's other keys.
local FIRST_MARK = 32
local ROUND = {
  { 'validation', 'hash' }, { 'validation_todo', 'sorted' }, { 'validation_leased', 'sorted' },
  { 'validation_tokens', 'hash' }, { 'validation_lost', 'hash' }, { 'validation_done', 'set' },
}
-- A validation set has thousands of rows; a number that somebody wrote must not occupy the server.
local MOST_ROWS = 1000000

local function round()
  local found = fields('validation')
  return found.version and found
end

local function is_of(open, version, lineage)
  return open and tonumber(open.version) == version and open.lineage == lineage
end

local function count_result(size)
  set('bytes', S.bytes + size)
  set('validation_bytes', (S.validation_bytes or 0) + size)
end

local function result_key(row)
  return 'validation_result:' .. row
end

-- What a result ends with: its row and this run.
local function result_trailer(row)
  return ':' .. row .. ':' .. trailer(FIRST_MARK)
end

-- A row would be answered twice, or waited for, where one of the keys was set back to an older value of its own.
local function rows_add_up(rows)
  local leased = size('validation_leased')
  return leased == fields_of('validation_tokens')
    and size('validation_todo') + leased + call('SCARD', 'validation_done') - 1 == rows
end

-- The status of a key of the round that is lost, older than the others or not this run's, if there is one.
local function wrong_round(open)
  local there = 0
  for i, part in ipairs(ROUND) do
    local name, kind = part[1], part[2]
    local exists = call('EXISTS', name) == 1
    there = there + (exists and 1 or 0)
    if open and not (exists and HAS_MARK[kind](name, stamp(FIRST_MARK + i))) then
      return { s = exists and 'foreign' or 'damaged', key = key(name) }
    end
  end
  if not open and there > 0 then
    return { s = 'damaged', key = key('validation') }
  end
  if open and not rows_add_up(tonumber(open.rows)) then
    return { s = 'torn' }
  end
end

local function results_are_whole()
  local whole = 0
  for _, row in ipairs(call('SMEMBERS', 'validation_done')) do
    local ends = result_trailer(row)
    if call('GETRANGE', result_key(row), -#ends, -1) == ends then
      whole = whole + 1
    end
  end
  return whole == call('SCARD', 'validation_done') - 1
end

-- `rows`: of the round that begins next, which must not find results where the number of this one's rows was lost.
local function clear_round(rows)
  local open = round()
  local most = math.max(open and tonumber(open.rows) or 0, rows or 0)
  for row = 0, math.min(most, MOST_ROWS) - 1 do
    call('UNLINK', result_key(row))
  end
  for _, part in ipairs(ROUND) do
    call('UNLINK', part[1])
  end
  count_result(-(S.validation_bytes or 0))
end

local function begin_round(version, lineage, rows)
  for i, part in ipairs(ROUND) do
    WRITE_MARK[part[2]](part[1], stamp(FIRST_MARK + i))
  end
  call('HSET', 'validation', 'version', version, 'lineage', lineage, 'rows', rows)
  for row = 0, rows - 1 do
    call('ZADD', 'validation_todo', row, row)
  end
end

local function end_lease(row)
  call('ZREM', 'validation_leased', row)
  call('HDEL', 'validation_tokens', row)
end

local function end_row_with(row, result)
  end_lease(row)
  call('SADD', 'validation_done', row)
  call('SET', result_key(row), result .. result_trailer(row))
  count_result(#result)
end

-- Behind all others. A row that was `lost` too often is ended unscored: it may be what kills the engines.
local function return_row(row, lost, why)
  if lost and call('HINCRBY', 'validation_lost', row, 1) >= MOST_LOSSES then
    local reason = 'given up after ' .. MOST_LOSSES .. ' attempts, the last one: ' .. why
    end_row_with(row, cmsgpack.pack({ reason = reason }))
  else
    end_lease(row)
    call('ZADD', 'validation_todo', MOST_ROWS + call('HINCRBY', 'validation', 'returned', 1), row)
  end
end

local function return_expired()
  for _, row in ipairs(call('ZRANGEBYSCORE', 'validation_leased', 0, now())) do
    return_row(row, true, 'its worker was not heard of')
  end
end

local function holds(item)
  return call('HGET', 'validation_tokens', item.row) == item.token
end
