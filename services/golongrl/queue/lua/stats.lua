-- Everything at one moment; changes nothing, expires nothing.
local time = now()
local leases, staleness, oldest_ready = {}, {}, time
local function behind(group)
  local by = tostring(S.v - (group.lowest or group.e))
  staleness[by] = (staleness[by] or 0) + 1
end
for _, uid in ipairs(call('ZRANGE', 'leased', 0, -1)) do
  local group = get(uid)
  behind(group)
  leases[#leases + 1] = { uid = uid, worker = group.worker, e = group.e, phase = group.phase, seq = group.seq,
    progress = group.progress, age = time - group.leased_at, progress_age = time - group.progress_at,
    expires_in = tonumber(call('ZSCORE', 'deadlines', uid)) - time, given_up = group.given_up }
end
local places = {}
for _, uid in ipairs(call('ZRANGE', 'ready', 0, -1)) do
  local group = get(uid)
  behind(group)
  places[#places + 1] = group.seq
  oldest_ready = math.min(oldest_ready, group.ready_at)
end
local batched = 0
for step = S.committed + 1, S.taken do
  batched = batched + call('LLEN', 'batch:' .. step)
end
local function hash(name)
  local flat, table = call('HGETALL', name), {}
  for i = 1, #flat, 2 do
    table[flat[i]] = tonumber(flat[i + 1])
  end
  return table
end
return answer({ s = 'ok', state = { v = S.v, committed = S.committed, taken = S.taken, row_count = S.row_count,
  cursor = S.cursor, bytes = S.bytes, max_bytes = S.max_bytes, B = S.B, eta = S.eta, order = S.order,
  streak = S.streak }, returned = call('ZCARD', 'returned'), leases = leases, ready = #places, places = places,
  batched = batched, reserved = #leases * reserve(), staleness = staleness, trained_staleness = hash('staleness'),
  rejected = hash('rejected'), redone = hash('redone'), counts = hash('counts'), stop = stopped() or nil,
  oldest_wait = time - oldest_ready, weights = weights() or nil })
