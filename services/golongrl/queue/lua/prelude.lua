-- Common to every script: where the keys are, the clock, and the few moves a row can make.
--
-- A row is in exactly one place: unread (at or after `cursor` in `rows`), `returned`, `leased`, `ready`, a `batch:N`,
-- `set_aside`, or ended. `outcome` has one byte a row: T trained, R rejected, A set aside, D dealt at least once and none
-- of these, X not in its epoch's order, 0 unread. A leased, ready or batched row has one record in `groups`, by uid. In a
-- batch, ASIDE before a uid marks the place of a group that was set aside.
-- Times are milliseconds. KEYS[1] is the state hash; every other key is beside it, in the same cluster slot.
local PREFIX = string.sub(KEYS[1], 1, -6)
local args = cmsgpack.unpack(ARGV[1])
-- The run's settings (under the names of Python's `QueueSettings`) and state, once `load_state` has read them.
local S = {}
local ASIDE = '!'
-- A server's clock that differs by less than this was corrected, not set.
local CLOCK_STEP_MS = 1000
-- Rows that are remembered with the reason of their last failure: more do not help a person, and take memory.
local MOST_FAILURES = 1000

local function key(name)
  return PREFIX .. name
end

local function call(command, name, ...)
  return redis.call(command, PREFIX .. name, ...)
end

local function is_aside(place)
  return string.sub(place, 1, 1) == ASIDE
end

local function answer(value)
  return cmsgpack.pack(value)
end

-- Settings are one packed value: a hash of them takes four times as long to read.
local function load_state()
  local settings = call('GET', 'settings')
  if not settings then
    return false
  end
  S = cmsgpack.unpack(settings)
  S.lease_ms, S.stall_ms = S.lease_s * 1000, S.stall_s * 1000
  local flat = call('HGETALL', 'state')
  for i = 1, #flat, 2 do
    S[flat[i]] = tonumber(flat[i + 1]) or flat[i + 1]
  end
  return true
end

local function set(field, value)
  S[field] = value
  call('HSET', 'state', field, value)
end

local function now()
  if S.manual_clock then
    return S.clock
  end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function get(uid)
  local packed = call('HGET', 'groups', uid)
  return packed and cmsgpack.unpack(packed)
end

local function put(uid, group)
  call('HSET', 'groups', uid, cmsgpack.pack(group))
end

-- The oldest policy that a group's tokens are from, or will be.
local function version_of(group)
  return group.lowest_version or group.engine_version
end

-- Rows -----

-- Position in the whole run's sequence -> epoch, row.
local function row_at(pos)
  local row = struct.unpack('<i4', call('GETRANGE', 'rows', pos * 4, pos * 4 + 3))
  for epoch, last in ipairs(S.epoch_ends) do
    if pos < last then
      return epoch - 1, row
    end
  end
end

local function outcome_offset(group)
  return group.epoch * S.table_rows + group.row
end

local function count(hash, field, by)
  call('HINCRBY', hash, field, by or 1)
end

-- Forget a leased or ready group's place and record; what becomes of the row is the caller's business.
local function forget(uid, group)
  if group.state == 'leased' then
    call('ZREM', 'leased', uid)
    call('ZREM', 'deadlines', uid)
    call('HDEL', 'requests', group.request)
  elseif group.state == 'ready' then
    call('ZREM', 'ready', uid)
  end
  if group.bytes then
    call('UNLINK', 'body:' .. uid)
    set('bytes', S.bytes - group.bytes)
  end
  call('HDEL', 'groups', uid)
end

local function give_back(uid, group, reason)
  forget(uid, group)
  call('ZADD', 'returned', group.pos, group.pos)
  count('redone', reason)
end

local function end_row(uid, group, mark)
  forget(uid, group)
  call('SETRANGE', 'outcome', outcome_offset(group), mark)
  call('HDEL', 'given_up', group.pos)
  call('HDEL', 'tries', group.pos)
end

-- An attempt on a leased row failed. The row is dealt again, or rejected when that was its last try.
local function fail_try(uid, group, reason, detail)
  local tries = group.tries + 1
  if tries < S.max_tries then
    call('HSET', 'tries', group.pos, tries)
    return give_back(uid, group, reason)
  end
  end_row(uid, group, 'R')
  count('rejected', 'failed:' .. reason)
  set('failed_streak', S.failed_streak + 1)
  if call('HLEN', 'failures') < MOST_FAILURES then
    call('HSET', 'failures', uid, cmsgpack.pack({ reason = reason, detail = detail or '', worker = group.worker,
      tries = tries }))
  end
end

-- Leases whose deadline passed, or that made no progress, go back.
local function sweep(time)
  for _, uid in ipairs(call('ZRANGEBYSCORE', 'deadlines', '-inf', time)) do
    local group = get(uid)
    fail_try(uid, group, time >= group.progress_at + S.stall_ms and 'stalled' or 'expired')
  end
end

-- The record of a group if `token` still is its lease's.
local function held(uid, token)
  local group = get(uid)
  if group and group.token == token then
    return group
  end
end

-- Counts, always from cardinalities -----

local function sealed_unfinished()
  local total = 0
  for step = S.v + 1, S.taken do
    total = total + call('LLEN', 'batch:' .. step)
  end
  return total
end

local function in_flight()
  return call('ZCARD', 'leased'), call('ZCARD', 'ready')
end

local function rows_to_deal()
  return S.row_count - S.cursor + call('ZCARD', 'returned')
end

-- What a leased group will occupy: the largest seen, or the settings' guess before any was.
local function reserve()
  return S.largest > 0 and S.largest or S.group_bytes
end

local function over_budget(leased)
  return S.bytes + leased * reserve() > S.max_bytes
end

local function stopped()
  if S.stop_reason and S.stop_reason ~= '' then
    return { reason = S.stop_reason, detail = S.stop_detail }
  end
  if S.streak >= S.max_gen_batches * S.groups_per_step then
    return { reason = 'all_equal', detail = tostring(S.streak) }
  end
  if S.failed_streak >= S.max_gen_batches * S.groups_per_step then
    return { reason = 'failing', detail = tostring(S.failed_streak) }
  end
end

local function fenced()
  return S.fence ~= args.fence
end

local function weights()
  local packed = call('GET', 'weights')
  return packed and cmsgpack.unpack(packed)
end

-- Always a write, so that WAITAOF has something of this connection to wait for even when a repeat changes nothing.
local function touch()
  call('HINCRBY', 'state', 'touched', 1)
end
