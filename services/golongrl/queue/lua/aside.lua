-- Groups that were taken and cannot be trained, each with its record, and its body while there is room for it.
-- More records than this do not help a person: the oldest row is rejected instead.
local MOST_ASIDE = 1000
-- Bodies may occupy this share of `max_bytes`, beside it: they are not freed by a commit, and must not hold up leases.
local ASIDE_SHARE = 1 / 16

local function aside(uid)
  local packed = call('HGET', 'set_aside', uid)
  return packed and cmsgpack.unpack(packed)
end

local function free_aside_body(uid, record)
  call('UNLINK', 'body:' .. uid)
  set('aside_bytes', S.aside_bytes - record.bytes)
  if record.routes then
    set('aside_routes_bytes', S.aside_routes_bytes - record.routes_bytes)
  end
end

local function over_aside_share()
  return S.aside_bytes > S.max_bytes * ASIDE_SHARE
    or (S.aside_routes_bytes or 0) > (S.max_routes_bytes or 0) * ASIDE_SHARE
end

-- The row's record is gone; `mark` says what becomes of it.
local function end_aside(uid, record, mark)
  free_aside_body(uid, record)
  call('HDEL', 'set_aside', uid)
  call('SETRANGE', 'outcome', outcome_offset(record), mark)
end

local function drop_aside(uid, record)
  end_aside(uid, record, 'R')
  tally('ended', 1)
  count('rejected', 'set_aside')
end

local function oldest_aside(with_body)
  local oldest, found
  for uid, packed in pairs(fields('set_aside')) do
    local record = cmsgpack.unpack(packed)
    if (not with_body or record.bytes > 0) and (not found or record.number < found.number) then
      oldest, found = uid, record
    end
  end
  return oldest, found
end

local function keep_aside(uid, record)
  if fields_of('set_aside') >= MOST_ASIDE then
    drop_aside(oldest_aside(false))
  end
  set('aside_bytes', S.aside_bytes + record.bytes)
  if record.routes then
    set('aside_routes_bytes', (S.aside_routes_bytes or 0) + record.routes_bytes)
  end
  call('HSET', 'set_aside', uid, cmsgpack.pack(record))
  while over_aside_share() do
    local oldest, found = oldest_aside(true)
    free_aside_body(oldest, found)
    found.bytes, found.routes, found.routes_bytes = 0, nil, nil
    call('HSET', 'set_aside', oldest, cmsgpack.pack(found))
  end
end
