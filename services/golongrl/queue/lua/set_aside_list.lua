local flat, found = call('HGETALL', 'set_aside'), {}
for i = 1, #flat, 2 do
  local record = cmsgpack.unpack(flat[i + 1])
  found[#found + 1] = { uid = flat[i], step = record.step, worker = record.worker, reason = record.reason,
    bytes = record.bytes, at = record.at, number = record.number }
end
table.sort(found, function(a, b)
  return a.number < b.number
end)
return answer({ s = 'ok', found = found })
