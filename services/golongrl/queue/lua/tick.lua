-- In every script that may write: the run's clock goes on.
do
  local time, wall, jump = read_clock()
  if wall ~= S.wall then
    S.clock, S.wall = time, wall
    call('HSET', 'state', 'clock', time, 'wall', wall)
  end
  if jump then
    count('counts', jump)
  end
end
