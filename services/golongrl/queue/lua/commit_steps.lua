-- Batches up to `step` have served: their rows are trained, their bytes are freed.
local function commit_steps(step)
  for s = S.committed + 1, step do
    for _, uid in ipairs(call('LRANGE', 'batch:' .. s, 0, -1)) do
      if not is_aside(uid) then
        local group = get(uid)
        tally('batched', -1)
        count('staleness', s - 1 - group.lowest_version)
        count('counts', 'trained')
        end_row(uid, group, 'T')
      end
    end
    call('DEL', 'batch:' .. s)
    call('HDEL', 'without_tasks', s)
    set_open_places(s, 0)
  end
  if step > S.committed then
    set('committed', step)
  end
end
