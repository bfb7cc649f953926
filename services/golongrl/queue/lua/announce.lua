-- Weights never go back. At max_staleness = 0 a group of another lineage is off-policy, so it is redone. Batches up to the new
-- version stay: they are what it was trained on.
local function redo_other_lineages(version, lineage)
  for step = version + 1, S.taken do
    for _, uid in ipairs(call('LRANGE', 'batch:' .. step, 0, -1)) do
      if not is_aside(uid) then
        local group = get(uid)
        group.state, group.step = 'ready', nil
        put(uid, group)
        tally('batched', -1)
        call('ZADD', 'ready', group.seq, uid)
      end
    end
    call('DEL', 'batch:' .. step)
    call('HDEL', 'without_tasks', step)
    set_open_places(step, 0)
  end
  set('taken', math.min(S.taken, version))
  for _, place in ipairs({ 'leased', 'ready' }) do
    for _, uid in ipairs(members(place)) do
      local group = get(uid)
      if group.lineage ~= lineage then
        give_back(uid, group, 'lineage')
      end
    end
  end
end

touch()
if fenced() then
  return answer({ s = 'fenced' })
end
local current = weights()
local new = args.weights
if new.version > S.v + 1 then
  return answer({ s = 'out_of_order', v = S.v, taken = S.taken })
end
if current and new.version < current.version then
  return answer({ s = 'ok', weights = current })
end
if current and S.max_staleness == 0 and current.lineage ~= new.lineage then
  redo_other_lineages(new.version, new.lineage)
end
set_string('weights', cmsgpack.pack(new))
return answer({ s = 'ok', weights = new })
