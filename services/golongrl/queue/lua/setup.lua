-- Create the run, or update what may change of it. ARGV[2]: rows (int32), ARGV[3]: task number by row (uint8),
-- ARGV[4]: `outcome` of the rows trained before there was this queue.
local fixed = { 'groups_per_step', 'max_staleness', 'order', 'digest' }
-- Of the rows as they were dealt out when the run was created.
local kept = { 'row_count', 'epoch_ends', 'begin' }
if load_state() then
  for _, name in ipairs(fixed) do
    if tostring(S[name]) ~= tostring(args.settings[name]) then
      return answer({ s = 'mismatch', name = name, was = tostring(S[name]), is = tostring(args.settings[name]) })
    end
  end
  for _, name in ipairs(kept) do
    args.settings[name] = S[name]
  end
end
call('SET', 'settings', cmsgpack.pack(args.settings))
if S.v == nil then
  redis.call('SET', key('rows'), ARGV[2])
  redis.call('SET', key('row_tasks'), ARGV[3])
  redis.call('SET', key('outcome'), ARGV[4])
  for _, field in ipairs({ 'cursor', 'seq', 'streak', 'failed_streak', 'bytes', 'aside_bytes', 'largest', 'clock' }) do
    call('HSET', 'state', field, 0)
  end
  for _, field in ipairs({ 'v', 'committed', 'taken' }) do
    call('HSET', 'state', field, args.settings.begin)
  end
end
touch()
return answer({ s = 'ok' })
