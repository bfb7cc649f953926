-- Names of the routes of all groups that the queue holds: those being made, waiting, taken, or set aside with their body.
-- A write, so that the answer counts once it is on disk: a name that a restarted server knows again must be in it.
touch()
local names = {}
for _, packed in pairs(fields('groups')) do
  names[#names + 1] = routes_name(cmsgpack.unpack(packed))
end
for _, packed in pairs(fields('set_aside')) do
  local record = cmsgpack.unpack(packed)
  if record.routes then
    names[#names + 1] = record.routes
  end
end
return answer({ s = 'ok', names = names })
