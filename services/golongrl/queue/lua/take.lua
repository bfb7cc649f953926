-- Seal `batch:STEP`, or answer the one that is sealed. base = step - 1 is the version it will be trained from.
--
--   fenced? --------------------------------------> fenced
--   sealed before? -------------------------------> the same batch, once the places of groups that were set aside are
--                                                   filled from the ready ones, in the same order (fill)
--   not the next step? ---------------------------> out_of_order
--   no row left, or the run was stopped? ---------> stopped
--   budget full of finished, uncommitted steps? --> wait: checkpoint_now
--        |
--   choose_by_lease (order: lease)                  choose_by_age (order: ready)
--     the B lowest lease numbers, all ready?          B ready groups, oldest version first, so that each row given up
--        |                                            twice still finds a place in time?
--        +---- no ----------------------------------> wait: groups (names the lease that blocks)
--        |
--   prefer_tasks (min_prompts_per_task > 1)
--     complete? or can `compose` make a complete one that harms nobody's place (`acceptable`)?
--        +---- no, and waiting may help ------------> wait: tasks
--        +---- no, and it may not: take it as it is
--        |
--   return_too_stale (never happens while the invariants hold)
--        |
--   seal; order: ready also gives up every other group that no later batch could train
local base = args.step - 1
-- The version that the first batch after all sealed ones will be trained from.
local after = math.max(args.step, S.taken)

-- The tokens of the leases that its groups were handed in under, and the rows' tasks, stand in their bodies, too.
local function batch(step, replayed)
  local uids, tokens, task_keys = call('LRANGE', 'batch:' .. step, 0, -1), {}, {}
  for i, uid in ipairs(uids) do
    local group = not is_aside(uid) and get(uid)
    if not is_aside(uid) and (not group or group.state ~= 'batch' or group.step ~= step) then
      return answer({ s = 'foreign', key = key('batch:' .. step) })
    end
    tokens[i], task_keys[i] = group and group.token or '', group and task_key_of(group) or ''
  end
  return answer({ s = 'batch', v = S.v, vocabulary = S.vocabulary, uids = uids, tokens = tokens,
    task_keys = task_keys, replayed = replayed, without_tasks = call('HEXISTS', 'without_tasks', step) })
end

local function wait(reason, blocking, full)
  local leased, ready = in_flight()
  local replaced = open_places(args.step)
  return answer({ s = 'wait', reason = reason, checkpoint_now = full and 1 or 0, full = full, ready = ready,
    leased = leased, wanted = replaced > 0 and replaced or S.groups_per_step, replaced = replaced, v = S.v,
    committed = S.committed, budgets = budgets(),
    blocking = blocking, time = now() })
end

-- Nil where one of them is elsewhere by now.
local function records(place)
  local list = {}
  for _, uid in ipairs(members(place)) do
    local group = get(uid)
    if not group or group.state ~= place then
      return nil
    end
    group.uid = uid
    list[#list + 1] = group
  end
  return list
end

local function by_seq(a, b)
  return a.seq < b.seq
end

local function by_version(a, b)
  local va, vb = version_of(a), version_of(b)
  if va ~= vb then
    return va < vb
  end
  return a.seq < b.seq
end

local function outside(groups, chosen)
  local inside, rest = {}, {}
  for _, group in ipairs(chosen) do
    inside[group.uid] = true
  end
  for _, group in ipairs(groups) do
    if not inside[group.uid] then
      rest[#rest + 1] = group
    end
  end
  return rest
end

local function joined(a, b)
  local all = {}
  for _, list in ipairs({ a, b }) do
    for _, group in ipairs(list) do
      all[#all + 1] = group
    end
  end
  return all
end

local function head(list, n)
  local first = {}
  for i = 1, math.min(n, #list) do
    first[i] = list[i]
  end
  return first
end

-- Will every group of `rest`, in this order, still find its place in time after this batch? First come the open places of
-- other sealed batches.
local function fits(rest)
  local open = all_open_places() - open_places(args.step)
  for i, group in ipairs(rest) do
    if after + math.floor((i - 1 - open) / S.groups_per_step) > version_of(group) + S.max_staleness then
      return false
    end
  end
  return true
end

-- Which groups: by lease order, or the oldest ready ones -----

-- Strict: the lowest lease numbers, however long they take. Admission alone then bounds staleness.
local function choose_by_lease(ready, leased, size)
  local chosen = head(ready, size)
  if #chosen < size or (leased[1] and leased[1].seq < chosen[size].seq) then
    return nil, leased[1]
  end
  return chosen
end

-- A row given up twice is waited for: no later batch may run out of places for such rows.
local function protected_of(groups)
  local list = {}
  for _, group in ipairs(groups) do
    if group.given_up >= 2 then
      list[#list + 1] = group
    end
  end
  table.sort(list, by_version)
  return list
end

local function protected_fit(chosen, protected)
  return fits(outside(protected, chosen))
end

local function choose_by_age(ready, leased, size, protected)
  if #ready < size then
    return nil, leased[1]
  end
  local chosen = head(ready, size)
  if protected_fit(chosen, protected) then
    return chosen
  end
  local first = protected_of(ready)
  chosen = head(joined(first, outside(ready, first)), size)
  if protected_fit(chosen, protected) then
    return chosen
  end
  return nil, protected_of(leased)[1]
end

-- Task-complete batches, a preference -----

local function per_task(groups)
  local counts = {}
  for _, group in ipairs(groups) do
    counts[group.task] = (counts[group.task] or 0) + 1
  end
  return counts
end

local function complete(groups)
  for _, n in pairs(per_task(groups)) do
    if n < S.min_prompts_per_task then
      return false
    end
  end
  return true
end

local function expiring(groups)
  local list = {}
  for _, group in ipairs(groups) do
    if version_of(group) + S.max_staleness < after then
      list[#list + 1] = group
    end
  end
  return list
end

-- Greedy: what must go now, its tasks filled up to the minimum, then whole tasks or members of tasks already in.
local function compose(ready, size)
  local chosen = expiring(ready)
  local rest = outside(ready, chosen)
  local have = per_task(chosen)
  local function add(task, n)
    for _, group in ipairs(rest) do
      if n > 0 and group.task == task and not group.picked then
        group.picked = true
        chosen[#chosen + 1] = group
        have[task] = (have[task] or 0) + 1
        n = n - 1
      end
    end
  end
  for task, n in pairs(per_task(chosen)) do
    add(task, S.min_prompts_per_task - n)
  end
  local available = per_task(rest)
  for _, group in ipairs(rest) do
    local room = size - #chosen
    if not group.picked and room > 0 then
      if have[group.task] then
        add(group.task, 1)
      elseif room >= S.min_prompts_per_task and available[group.task] >= S.min_prompts_per_task then
        add(group.task, S.min_prompts_per_task)
      end
    end
  end
  return chosen
end

local function newest_wait(chosen)
  local latest = 0
  for _, group in ipairs(chosen) do
    latest = math.max(latest, group.ready_at)
  end
  return now() - latest
end

-- chosen, or a task-complete choice that harms nobody, or nil while waiting for one makes sense.
local function prefer_tasks(chosen, ready, leased, size, acceptable)
  if complete(chosen) then
    return chosen, false
  end
  local other = compose(ready, size)
  if #other == size and complete(other) and acceptable(other) then
    return other, false
  end
  local place = math.floor((#leased + #ready + sealed_unfinished()) / S.groups_per_step)
  local more_can_come = #leased > 0 or (place <= S.max_staleness and rows_to_deal() > 0)
  if more_can_come and #expiring(joined(ready, leased)) == 0 and newest_wait(chosen) < S.lease_ms then
    return nil
  end
  return chosen, true
end

-- Sealing -----

local function has_minimum()
  return S.min_prompts_per_task > 1 and S.min_prompts_per_task <= S.groups_per_step
end

local function note_without_tasks()
  if call('HSETNX', 'without_tasks', args.step, 1) == 1 then
    count('counts', 'tasks_given_up')
  end
end

local function place_in_batch(chosen)
  table.sort(chosen, by_seq)
  for _, group in ipairs(chosen) do
    local uid = group.uid
    call('ZREM', 'ready', uid)
    call('RPUSH', 'batch:' .. args.step, uid)
    group.state, group.step, group.uid, group.picked = 'batch', args.step, nil, nil
    put(uid, group)
  end
  tally('batched', #chosen)
end

-- order: ready. Everything that could not be trained in a later batch is given up now, its row redone.
local function give_up(groups)
  for _, group in ipairs(expiring(groups)) do
    call('HINCRBY', 'given_up', group.pos, 1)
    give_back(group.uid, group, 'given_up')
  end
end

-- Never reached while the invariants hold; if it is, the bound is kept all the same.
local function return_too_stale(chosen)
  local found = false
  for _, group in ipairs(chosen) do
    if group.lowest_version + S.max_staleness < base then
      give_back(group.uid, group, 'too_stale')
      found = true
    end
  end
  return found
end

-- What the next `places` may be filled with, and which other choices harm nobody; where that must be waited for, nil and the
-- lease that holds it up.
local function choose(ready, leased, size)
  local chosen, blocking, acceptable
  if S.order == 'lease' then
    chosen, blocking = choose_by_lease(ready, leased, size)
    acceptable = function(other)
      local rest = outside(joined(ready, leased), other)
      table.sort(rest, by_seq)
      return fits(rest)
    end
  else
    table.sort(ready, by_version)
    table.sort(leased, by_version)
    local protected = protected_of(joined(ready, leased))
    chosen, blocking = choose_by_age(ready, leased, size, protected)
    acceptable = function(other)
      return protected_fit(other, protected)
    end
  end
  return chosen, blocking, acceptable
end

local function batched()
  local groups = {}
  for _, uid in ipairs(call('LRANGE', 'batch:' .. args.step, 0, -1)) do
    if not is_aside(uid) then
      groups[#groups + 1] = get(uid)
    end
  end
  return groups
end

local function is_last(leased)
  return #leased == 0 and rows_to_deal() == 0
end

-- Groups were set aside: the next ready ones take their places. Everybody behind those moves ahead, so nobody's staleness
-- grows. Where no more rows can come, the batch stays short.
local function fill()
  local leased, ready = records('leased'), records('ready')
  if not leased or not ready then
    return torn(leased and 'ready' or 'leased')
  end
  local open, last = open_places(args.step), is_last(leased)
  local chosen, blocking = choose(ready, leased, last and math.min(open, #ready) or open)
  if not chosen then
    return wait('groups', blocking)
  end
  if return_too_stale(chosen) then
    return wait('groups')
  end
  local rest = outside(joined(ready, leased), chosen)
  place_in_batch(chosen)
  set_open_places(args.step, 0)
  if not last and has_minimum() and not complete(batched()) then
    note_without_tasks()
  end
  if S.order == 'ready' and all_open_places() == 0 then
    give_up(rest)
  end
  -- It was never whole before, so never trained.
  return batch(args.step, false)
end

local function try_to_seal()
  local leased, ready = records('leased'), records('ready')
  if not leased or not ready then
    return torn(leased and 'ready' or 'leased')
  end
  local last = is_last(leased)
  local size = last and math.min(S.groups_per_step, #ready) or S.groups_per_step
  local chosen, blocking, acceptable = choose(ready, leased, size)
  if not chosen then
    return wait('groups', blocking)
  end
  local without_tasks = false
  if not last and has_minimum() then
    chosen, without_tasks = prefer_tasks(chosen, ready, leased, size, acceptable)
    if not chosen then
      return wait('tasks', leased[1])
    end
  end
  if return_too_stale(chosen) then
    return wait('groups')
  end
  local rest = outside(joined(ready, leased), chosen)
  place_in_batch(chosen)
  set('taken', args.step)
  if without_tasks then
    note_without_tasks()
  end
  if S.order == 'ready' then
    give_up(rest)
  end
  return batch(args.step, false)
end

if fenced() then
  return answer({ s = 'fenced' })
end
if not of_one_moment() then
  return torn()
end
sweep(now())
if args.step <= S.taken and args.step > S.committed then
  touch()
  if open_places(args.step) > 0 then
    local stop = stopped()
    if stop then
      stop.s = 'stopped'
      return answer(stop)
    end
    return fill()
  end
  return batch(args.step, true)
end
if args.step ~= S.taken + 1 then
  return answer({ s = 'out_of_order', v = S.v, taken = S.taken })
end
local leased_now, ready_now = in_flight()
if leased_now + ready_now + rows_to_deal() == 0 then
  return answer({ s = 'stopped', reason = 'exhausted', detail = '' })
end
local stop = stopped()
if stop then
  stop.s = 'stopped'
  return answer(stop)
end
local full = S.v > S.committed and over_budget(leased_now + 1)
if full then
  return wait('budget', nil, full)
end
return try_to_seal()
