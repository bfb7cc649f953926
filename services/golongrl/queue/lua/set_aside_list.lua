local found = {}
for uid, packed in pairs(fields('set_aside')) do
  local record = cmsgpack.unpack(packed)
  found[#found + 1] = { uid = uid, step = record.step, worker = record.worker, reason = record.reason,
    bytes = record.bytes, at = record.at, number = record.number }
end
table.sort(found, function(a, b)
  return a.number < b.number
end)
return answer({ s = 'ok', found = found })
