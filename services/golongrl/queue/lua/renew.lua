-- args.items: {uid, token, progress, phase} each. A lease lives on by progress, not by its worker's heartbeat alone.
local order = { leased = 0, generating = 1, scoring = 2 }
local time = now()
local kept = {}
for i, item in ipairs(args.items) do
  local uid, token, progress, phase = item[1], item[2], item[3], item[4]
  local group = held(uid, token)
  local alive = group and group.state == 'leased' and group.worker == args.worker
  if alive then
    local moved = progress > group.progress or (order[phase] or 0) > order[group.phase]
    if moved then
      group.progress = math.max(progress, group.progress)
      group.progress_at = time
      group.phase = (order[phase] or 0) > order[group.phase] and phase or group.phase
    elseif time >= group.progress_at + S.stall_ms then
      fail_try(uid, group, 'stalled')
      alive = false
    end
  end
  if alive then
    put(uid, group)
    call('ZADD', 'deadlines', math.min(time + S.lease_ms, group.progress_at + S.stall_ms), uid)
  end
  kept[i] = alive and 1 or 0
end
return answer({ s = 'ok', kept = kept })
