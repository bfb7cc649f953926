-- Admission: floor(A / B) + (v - e) <= max_staleness, A taken before the new group joins. The same request gets the same lease.
local function lease_of(uid, group)
  return answer({ s = 'lease', lease = { uid = uid, epoch = group.epoch, row = group.row, seq = group.seq,
    token = group.token, worker = group.worker, engine_version = group.engine_version, lineage = group.lineage,
    deadline_s = tonumber(call('ZSCORE', 'deadlines', uid)) / 1000, lease_s = S.lease_s, tries = group.tries,
    vocabulary = S.vocabulary, task_key = task_key_of(group) } })
end

local function refuse(reason, full)
  local leased, ready = in_flight()
  return answer({ s = 'refused', reason = reason, v = S.v, max_staleness = S.max_staleness,
    groups_per_step = S.groups_per_step, leased = leased, ready = ready,
    sealed = sealed_unfinished(), full = full, budgets = budgets(),
    weights = weights() or nil })
end

-- A worker's new process releases what the old one held; a late message of the old one gets nothing.
local function superseded()
  local current = call('HGET', 'incarnations', args.worker)
  if current == args.incarnation then
    return false
  end
  if call('SISMEMBER', 'past_incarnations', args.worker .. '/' .. args.incarnation) == 1 then
    return true
  end
  if current then
    call('SADD', 'past_incarnations', args.worker .. '/' .. current)
    for _, uid in ipairs(members('leased')) do
      local group = get(uid)
      if group.worker == args.worker then
        fail_try(uid, group, 'worker_restarted')
      end
    end
  end
  call('HSET', 'incarnations', args.worker, args.incarnation)
  return false
end

-- The row to deal, and whether it was dealt before; nil where it is not to be dealt, because its key is an older one.
local function next_row()
  local returned = call('ZRANGE', 'returned', 1, 1)[1]
  local pos = tonumber(returned or S.cursor)
  local epoch, row = row_at(pos)
  local next = { pos = pos, epoch = epoch, row = row, uid = epoch .. '-' .. row, returned = returned }
  local offset = outcome_offset(next)
  if get(next.uid) or call('GETRANGE', 'outcome', offset, offset) ~= (returned and 'D' or '\0') then
    return nil, returned and 'returned' or 'state'
  end
  return next
end

if differ(args.data, S.data) then
  return answer({ s = 'data' })
end
if not of_one_moment() then
  return torn()
end
local time = now()
sweep(time)
if superseded() then
  return refuse('superseded')
end
local again = call('HGET', 'requests', args.request)
if again then
  return lease_of(again, get(again))
end
local leased, ready = in_flight()
local to_deal = rows_to_deal()
if to_deal + leased + ready == 0 and S.taken == S.v then
  return answer({ s = 'stopped', reason = 'exhausted', detail = '' })
end
local stop = stopped()
if stop then
  stop.s = 'stopped'
  return answer(stop)
end
if args.engine_version > S.v + 1 then
  return refuse('ahead')
end
local published = weights()
if S.max_staleness == 0 and published and args.lineage ~= '' and args.lineage ~= published.lineage then
  return refuse('lineage')
end
if to_deal == 0 then
  return refuse('no_rows')
end
local place = math.floor((leased + ready + sealed_unfinished()) / S.groups_per_step)
if place + S.v - args.engine_version > S.max_staleness then
  return refuse(place > S.max_staleness and 'full' or 'behind')
end
local full = leased + ready >= S.groups_per_step and over_budget(leased + 1)
if full then
  return refuse('bytes', full)
end

local next, older = next_row()
if not next then
  return torn(older)
end
local pos, uid = next.pos, next.uid
if next.returned then
  call('ZREM', 'returned', next.returned)
else
  set('cursor', S.cursor + 1)
end
set('seq', S.seq + 1)
local group = {
  state = 'leased', pos = pos, epoch = next.epoch, row = next.row, seq = S.seq, engine_version = args.engine_version, lineage = args.lineage,
  token = uid .. ':' .. args.random, request = args.request, worker = args.worker, leased_at = time,
  progress = 0, progress_at = time, phase = 'leased',
  task = string.byte(call('GETRANGE', 'row_tasks', next.row, next.row)),
  given_up = tonumber(call('HGET', 'given_up', pos) or 0),
  tries = tonumber(call('HGET', 'tries', pos) or 0),
}
put(uid, group)
call('SETRANGE', 'outcome', outcome_offset(group), 'D')
call('ZADD', 'leased', S.seq, uid)
call('ZADD', 'deadlines', time + math.min(S.lease_ms, S.stall_ms), uid)
call('HSET', 'requests', args.request, uid)
count('counts', 'leases')
return lease_of(uid, group)
