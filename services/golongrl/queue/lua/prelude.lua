-- Common to every script: where the keys are, the clock, and the few moves a row can make.
--
-- A row is in exactly one place: unread (at or after `cursor` in `rows`), `returned`, `leased`, `ready`, a `batch:N`,
-- `set_aside`, or ended. `outcome` has one byte a row: T trained, R rejected, A set aside, D dealt at least once and none
-- of these, X not in its epoch's order, 0 unread. A leased, ready or batched row has one record in `groups`, by uid. In a
-- batch, ASIDE before a uid marks a group that was set aside; `open:STEP` of the state counts those not replaced yet.
-- Times are milliseconds. KEYS[1] is the state hash; every other key is beside it, in the same cluster slot.
local PREFIX = string.sub(KEYS[1], 1, -6)
local args = cmsgpack.unpack(ARGV[1])
-- The run's settings (under the names of Python's `QueueSettings`) and state, once `load_state` has read them.
local S = {}
-- The layout of the keys that this version reads and writes; another one's run is refused.
local FORMAT = 3
local ASIDE = '!'
-- Every key has a mark of its own from set-up on (`stamp`), so it always exists: a key that is missing was lost. In a hash or
-- sorted set it is the value of this member; a set has `trailer` as a member, a string ends with it.
local MARK = '\0'
local TRAILER = 16
local MARKED = {
  text = { 'rows', 'row_tasks', 'outcome', 'weights' },
  sorted = { 'returned', 'leased', 'ready', 'deadlines' },
  hash = { 'state', 'requests', 'groups', 'given_up', 'tries', 'failures', 'incarnations', 'counts', 'rejected',
    'redone', 'staleness', 'without_tasks', 'set_aside' },
  set = { 'past_incarnations' },
}
-- A server's clock that differs by less than this was corrected, not set.
local CLOCK_STEP_MS = 1000
-- Rows that are remembered with the reason of their last failure: more do not help a person, and take memory.
local MOST_FAILURES = 1000
-- The settings know how large a group's routes can be. One that says it has more reserves no more than this many times
-- as much for every later lease.
local MOST_ROUTES_RESERVES = 4

local function key(name)
  return PREFIX .. name
end

local function call(command, name, ...)
  return redis.call(command, PREFIX .. name, ...)
end

local function is_aside(place)
  return string.sub(place, 1, 1) == ASIDE
end

-- After its own checksum: a value that changed on its way could name another row, or another version.
local function answer(value)
  local packed = cmsgpack.pack(value)
  return redis.sha1hex(packed) .. packed
end

-- Settings are one packed value: a hash of them takes four times as long to read.
local function load_state()
  local settings = call('GET', 'settings')
  if not settings then
    return false
  end
  S = cmsgpack.unpack(settings)
  if S.format ~= FORMAT then
    return true
  end
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

-- The collections of a run, without their marks -----

local function size(zset)
  return call('ZCARD', zset) - 1
end

-- The mark has a score below every other.
local function members(zset)
  return call('ZRANGE', zset, 1, -1)
end

local function fields(hash)
  local flat, found = call('HGETALL', hash), {}
  for i = 1, #flat, 2 do
    if flat[i] ~= MARK then
      found[flat[i]] = flat[i + 1]
    end
  end
  return found
end

local function fields_of(hash)
  return call('HLEN', hash) - 1
end

-- What a key of this run is marked with: the run's own random number, and which key it is.
local function stamp(index)
  return S.generation * 64 + index
end

local function trailer(index)
  return string.format('%016.0f', stamp(index))
end

local HAS_MARK = {}

function HAS_MARK.hash(name, mark)
  return tonumber(call('HGET', name, MARK)) == mark
end

function HAS_MARK.sorted(name, mark)
  return tonumber(call('ZSCORE', name, MARK)) == -1 - mark
end

function HAS_MARK.set(name, mark)
  return call('SISMEMBER', name, string.format('%016.0f', mark)) == 1
end

function HAS_MARK.text(name, mark)
  return tonumber(call('GETRANGE', name, -TRAILER, -1)) == mark
end

local WRITE_MARK = {}

function WRITE_MARK.hash(name, mark)
  call('HSET', name, MARK, string.format('%.0f', mark))
end

function WRITE_MARK.sorted(name, mark)
  call('ZADD', name, string.format('%.0f', -1 - mark), MARK)
end

function WRITE_MARK.set(name, mark)
  call('SADD', name, string.format('%016.0f', mark))
end

-- The first batch that is not there.
local function lost_batch()
  -- In parts, as Lua's stack is bounded.
  for first = S.committed + 1, S.taken, 1000 do
    local keys = {}
    for step = first, math.min(first + 999, S.taken) do
      keys[#keys + 1] = key('batch:' .. step)
    end
    if redis.call('EXISTS', unpack(keys)) < #keys then
      for _, name in ipairs(keys) do
        if redis.call('EXISTS', name) == 0 then
          return name
        end
      end
    end
  end
end

-- The first key that was lost, or that another one was copied or renamed over. Every script spends a third of its time
-- here: one call a key, and little else.
local function wrong_key()
  for kind, names in pairs(MARKED) do
    local has_mark = HAS_MARK[kind]
    for i, name in ipairs(names) do
      if not has_mark(name, stamp(i)) then
        return key(name)
      end
    end
  end
  return lost_batch()
end

-- Why the run, if it exists, cannot be used.
local function unusable()
  if S.format ~= FORMAT then
    return { s = 'format', format = S.format or 1, reads = FORMAT }
  end
  local wrong = wrong_key()
  if wrong then
    return { s = redis.call('EXISTS', wrong) == 1 and 'foreign' or 'damaged', key = wrong }
  end
end

-- Whether two processes read other rows, as far as both are known.
local function differ(data, other)
  return (data or '') ~= '' and (other or '') ~= '' and data ~= other
end

-- The answer where keys are of two moments; `name` where one of them is known to be an older value of its own.
local function torn(name)
  return answer({ s = 'torn', key = name and key(name) })
end

-- The run's clock -----
--
-- It goes on with the server's clock from call to call, never back, and at most half a lease between two calls: a server
-- clock that is set back or ahead neither keeps a dead worker's lease alive nor ends that of a healthy one, which is
-- renewed at a third of its length.

local function wall_ms()
  if S.manual_clock then
    return S.manual_wall
  end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The run's time, what the server's clock says, and what is wrong with that, if anything.
local function read_clock()
  local wall = wall_ms()
  local passed, most = wall - S.wall, S.lease_ms / 2
  if passed < 0 then
    return S.clock, wall, passed < -CLOCK_STEP_MS and 'clock_set_back' or nil
  end
  if passed > most then
    return S.clock + most, wall, 'clock_gaps'
  end
  return S.clock + passed, wall
end

local function now()
  local time = read_clock()
  return time
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

-- Empty where nobody compares the rows that the workers read with the run's.
local function task_key_of(group)
  return (S.data or '') ~= '' and S.task_names[group.task + 1] or ''
end

local function outcome_offset(group)
  return group.epoch * S.table_rows + group.row
end

local function count(hash, field, by)
  call('HINCRBY', hash, field, by or 1)
end

-- As Python's `object_name`: the token is UID:RANDOM.
local function routes_name(group)
  return (string.gsub(group.token, ':', '.')) .. '.routes'
end

-- Bytes of routes that stored groups refer to. They are files of the weight store; their learner deletes them.
local function count_routes(by)
  if by ~= 0 then
    set('routes_bytes', (S.routes_bytes or 0) + by)
  end
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
    count_routes(-(group.routes_bytes or 0))
  end
  call('HDEL', 'groups', uid)
end

local function give_back(uid, group, reason)
  forget(uid, group)
  call('ZADD', 'returned', group.pos, group.pos)
  count('redone', reason)
end

-- Rows that ended, and groups in batches: what `of_one_moment` compares the keys with. A run that an older version of this
-- program began has neither number.
local function tally(field, by)
  if S[field] then
    set(field, S[field] + by)
  end
end

local function end_row(uid, group, mark)
  forget(uid, group)
  tally('ended', 1)
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
  if fields_of('failures') < MOST_FAILURES then
    call('HSET', 'failures', uid, cmsgpack.pack({ reason = reason, detail = detail or '', worker = group.worker,
      tries = tries }))
  end
end

-- Leases whose deadline passed, or that made no progress, go back.
local function sweep(time)
  for _, uid in ipairs(call('ZRANGEBYSCORE', 'deadlines', 0, time)) do
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

-- Places of a batch that groups left when they were set aside, until `take` fills them.
local function open_places(step)
  return S['open:' .. step] or 0
end

local function set_open_places(step, places)
  if places > 0 then
    return set('open:' .. step, places)
  end
  S['open:' .. step] = nil
  call('HDEL', 'state', 'open:' .. step)
end

local function all_open_places()
  local total = 0
  for step = S.v + 1, S.taken do
    total = total + open_places(step)
  end
  return total
end

-- A batch that was sealed short, because no rows were left, still occupies a whole step.
local function sealed_unfinished()
  return (S.taken - S.v) * S.groups_per_step - all_open_places()
end

local function in_flight()
  return size('leased'), size('ready')
end

-- Keys that all have their marks may still be of two moments, when one was set back to an older value of its own. Rows and
-- groups are counted, so that none of them is lost or dealt twice by that.
local function of_one_moment()
  local leased, ready = in_flight()
  if leased ~= size('deadlines') or leased ~= fields_of('requests') then
    return false
  end
  if not S.ended then
    return true
  end
  local groups = fields_of('groups')
  return groups == leased + ready + S.batched and S.cursor == size('returned') + groups + fields_of('set_aside') + S.ended
end

local function rows_to_deal()
  return S.row_count - S.cursor + size('returned')
end

-- What a leased group will occupy: the largest seen, or the settings' guess before any was.
local function reserve()
  return S.largest > 0 and S.largest or S.group_bytes
end

local function routes_reserve()
  local guess = S.group_routes_bytes or 0
  return math.min(S.largest_routes or guess, MOST_ROUTES_RESERVES * guess)
end

-- The most bytes of routes a group can have: what neither the settings' largest group nor the whole budget holds is a
-- mistake of its worker, and numbers far above would lose bytes of the sum.
local function most_routes()
  return math.max(S.group_routes_bytes or 0, S.max_routes_bytes or 0)
end

-- Which budget is full: 'bytes' of Redis' memory, 'routes' of the weight store.
local function over_budget(leased)
  if S.bytes + leased * reserve() > S.max_bytes then
    return 'bytes'
  end
  if (S.group_routes_bytes or 0) > 0 and (S.routes_bytes or 0) + leased * routes_reserve() > S.max_routes_bytes then
    return 'routes'
  end
end

-- What a person is told of the budgets.
local function budgets()
  return { bytes = S.bytes, reserve = reserve(), max_bytes = S.max_bytes, routes_bytes = S.routes_bytes or 0,
    routes_reserve = routes_reserve(), max_routes_bytes = S.max_routes_bytes or 0 }
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
  if (S.aside_streak or 0) >= S.max_gen_batches * S.groups_per_step then
    return { reason = 'untrainable', detail = tostring(S.aside_streak) }
  end
end

local function fenced()
  return S.fence ~= args.fence
end

local function weights()
  local packed = string.sub(call('GET', 'weights'), 1, -TRAILER - 1)
  return packed ~= '' and cmsgpack.unpack(packed) or nil
end

local function set_string(name, value)
  for i, known in ipairs(MARKED.text) do
    if known == name then
      return call('SET', name, value .. trailer(i))
    end
  end
end

-- Always a write, so that WAITAOF has something of this connection to wait for even when a repeat changes nothing.
local function touch()
  call('HINCRBY', 'state', 'touched', 1)
end
