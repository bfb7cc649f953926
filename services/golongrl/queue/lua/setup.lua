-- Create the run, or update what may change of it. ARGV[2]: rows (int32), ARGV[3]: task number by row (uint8),
-- ARGV[4]: `outcome` of the rows trained before there was this queue.
local fixed = { 'groups_per_step', 'max_staleness', 'order', 'digest' }
-- Of the rows as they were dealt out when the run was created.
local kept = { 'row_count', 'epoch_ends', 'begin', 'generation' }

local function update()
  local wrong = unusable()
  if wrong then
    return answer(wrong)
  end
  for _, name in ipairs(fixed) do
    if tostring(S[name]) ~= tostring(args.settings[name]) then
      return answer({ s = 'mismatch', name = name, was = tostring(S[name]), is = tostring(args.settings[name]) })
    end
  end
  if differ(S.data, args.settings.data) then
    return answer({ s = 'mismatch', name = 'data', was = S.data, is = args.settings.data })
  end
  for _, name in ipairs(kept) do
    args.settings[name] = S[name]
  end
end

local function create()
  S.generation = args.settings.generation
  for name, value in pairs({ rows = ARGV[2], row_tasks = ARGV[3], outcome = ARGV[4], weights = '' }) do
    set_string(name, value)
  end
  for _, kind in ipairs({ 'sorted', 'hash', 'set' }) do
    for i, name in ipairs(MARKED[kind]) do
      WRITE_MARK[kind](name, stamp(i))
    end
  end
  for _, field in ipairs({ 'cursor', 'seq', 'ended', 'batched', 'streak', 'failed_streak', 'bytes', 'aside_bytes', 'largest', 'clock',
    'manual_wall' }) do
    call('HSET', 'state', field, 0)
  end
  for _, field in ipairs({ 'v', 'committed', 'taken' }) do
    call('HSET', 'state', field, args.settings.begin)
  end
  S.manual_clock, S.manual_wall = args.settings.manual_clock, 0
  call('HSET', 'state', 'wall', wall_ms())
end

args.settings.format = FORMAT
if load_state() then
  local refused = update()
  if refused then
    return refused
  end
elseif not args.swept then
  return answer({ s = 'sweep' })
else
  create()
end
call('SET', 'settings', cmsgpack.pack(args.settings))
touch()
return answer({ s = 'ok' })
