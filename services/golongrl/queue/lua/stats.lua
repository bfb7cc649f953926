-- Everything at one moment, under the names of Python's `QueueStats`; changes nothing, expires nothing.
local time = now()
local staleness = {}
local function note_staleness(group)
  local behind = tostring(S.v - version_of(group))
  staleness[behind] = (staleness[behind] or 0) + 1
end

-- In lease order.
local leases, seqs = {}, {}
for i, uid in ipairs(members('leased')) do
  local group = get(uid)
  note_staleness(group)
  leases[i] = { uid = uid, worker = group.worker, engine_version = group.engine_version, phase = group.phase,
    progress = group.progress, age_s = (time - group.leased_at) / 1000,
    progress_age_s = (time - group.progress_at) / 1000,
    expires_in_s = (tonumber(call('ZSCORE', 'deadlines', uid)) - time) / 1000, tries = group.tries }
  seqs[i] = group.seq
end
local ready, before, oldest_ready = 0, 0, time
for _, uid in ipairs(members('ready')) do
  local group = get(uid)
  note_staleness(group)
  ready = ready + 1
  before = before + ((seqs[1] and group.seq < seqs[1]) and 1 or 0)
  oldest_ready = math.min(oldest_ready, group.ready_at)
end

-- The lease that the next batch waits for: in lease order the first one, if it is among the next places; by readiness
-- the oldest one, while too few groups are ready.
local function blocking()
  if S.order == 'lease' then
    return before < S.groups_per_step and leases[1] or nil
  end
  local oldest
  for _, lease in ipairs(ready < S.groups_per_step and leases or {}) do
    if not oldest or lease.engine_version < oldest.engine_version then
      oldest = lease
    end
  end
  return oldest
end

local function hash(name)
  local counts, total = {}, 0
  for field, value in pairs(fields(name)) do
    counts[field] = tonumber(value)
    total = total + counts[field]
  end
  return counts, total
end

local counts = hash('counts')
local rejected_by, rejected = hash('rejected')
return answer({ s = 'ok', stop = stopped() or nil, stats = {
  version = S.v, committed = S.committed, taken = S.taken,
  rows = S.row_count, unread = S.row_count - S.cursor, returned = size('returned'),
  leased = #leases, ready = ready, in_batches = fields_of('groups') - #leases - ready,
  trained = counts.trained or 0, rejected = rejected, set_aside = fields_of('set_aside'),
  bytes = S.bytes, reserved_bytes = #leases * reserve(), max_bytes = S.max_bytes,
  routes_bytes = S.routes_bytes or 0, reserved_routes_bytes = #leases * routes_reserve(),
  max_routes_bytes = (S.group_routes_bytes or 0) > 0 and S.max_routes_bytes or 0,
  groups_per_step = S.groups_per_step, max_staleness = S.max_staleness, order = S.order, max_tries = S.max_tries,
  all_equal_streak = S.streak, failed_streak = S.failed_streak,
  leases = leases, blocking = blocking(), oldest_wait_s = (time - oldest_ready) / 1000,
  staleness = staleness, trained_staleness = (hash('staleness')),
  rejected_by = rejected_by, redone_by = (hash('redone')),
  tasks_given_up = counts.tasks_given_up or 0,
  clock_set_back = counts.clock_set_back or 0, clock_gaps = counts.clock_gaps or 0, weights = weights() or nil } })
