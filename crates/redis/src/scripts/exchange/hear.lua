-- Part of exchange.lua: hearing a report.

function F.hear_holds(mine)
  local pending, first = mine.pending, 1
  -- What it acknowledged is its own word from now on; the sum stays.
  while pending[first] and pending[first][1] <= X.applied do first = first + 1 end
  if first > 1 then
    local rest = {}
    for i = first, #pending do rest[#rest + 1] = pending[i] end
    pending, mine.pending = rest, rest
  end
  local coming, epoch, A, at = {}, mine.epoch, X.A, X.at
  for _, lent in ipairs(pending) do coming[lent[2]] = (coming[lent[2]] or 0) + lent[3] end
  for _ = 1, num(A[at]) do
    local account, units = A[at + 1], num(A[at + 2])
    at = at + 2
    local one = F.balance(account)
    if one or byte(account) ~= 97 then
      local old, place = 0, nil
      if one then old, place = F.holding(one, epoch) end
      units = units + (coming[account] or 0)
      if old ~= units then
        X.touched = X.touched + 1
        F.change(account, one, epoch, place, old, units)
      end
    end
  end
  X.at = at + 1
end

function F.hear_used(mine)
  for _ = 1, num(X.A[X.at]) do
    local api, units = X.A[X.at + 1], num(X.A[X.at + 2])
    X.at = X.at + 2
    F.use_changed(api, mine.used[api] or 0, units)
    mine.used[api] = units
  end
  X.at = X.at + 1
end

-- Who waited before keeps its place: its age says the same as it did. Under `fair` ranks move with what is served.
function F.hear_waiters()
  local A, at, field = X.A, X.at, 'w:' .. X.gate
  local known, list = F.get(field), {}
  for i = 1, num(A[at]) do list[i] = A[at - 1 + 2 * i] end
  local said = concat(list, '\n')
  if m.fair == 0 and said == (known or '') then return end
  local base, before, come, gone = m.fair == 1 and 0 or m.clock, {}, {}, {}
  for _, line in ipairs(F.lines(known or '')) do before[line] = true end
  for i, line in ipairs(list) do
    if not before[line] or m.fair == 1 then
      come[#come + 1], come[#come + 2] = base - num(A[at + 2 * i]), X.gate .. US .. line
    end
    before[line] = nil
  end
  for line in pairs(before) do gone[#gone + 1] = X.gate .. US .. line end
  if #gone > 0 then call('ZREM', X.L, unpack(gone)) end
  if #come > 0 then call('ZADD', X.L, unpack(come)) end
  if said == '' then F.del(field) else F.put(field, said) end
end

function F.hear_rates(mine)
  m.done = m.done + max(0, X.said_done - mine.done)
  m.queued = m.queued + X.said_queued - mine.queued
  m.vtime = max(m.vtime, X.said_vtime)
  local unspent = max(0, X.said_unspent - mine.unspent)
  if unspent > 0 then m.tokens = min(m.tokens + unspent * MICRO, m.share * MICRO) end
  mine.done, mine.queued, mine.unspent, mine.version = X.said_done, X.said_queued, X.said_unspent, X.said_version
  mine.label, mine.in_use, mine.waiting = X.label, num(X.A[24]), num(X.A[25])
end

function F.hear_pods(mine)
  local avoid = {}
  for i = 1, num(X.A[X.at]) do
    avoid[i] = 'p:' .. X.A[X.at + 1]
    X.at = X.at + 1
  end
  X.at = X.at + 1
  mine.avoid = avoid
  for _ = 1, num(X.A[X.at]) do
    local account, in_use = 'p:' .. X.A[X.at + 1], num(X.A[X.at + 2])
    X.at = X.at + 2
    local one = F.balance(account)
    if one then
      local units = min(max(0, in_use - one[2]), one[1])
      F.set_outside(account, units)
      if units > 0 then m.outs[account] = m.clock + OUTSIDE_US end
    end
  end
  X.at = X.at + 1
end

function F.end_sync(mine)
  mine.syncing = 0
  F.release_where(function(one) return one[2] == X.gate end, { 1000000000 })
end

function F.credit_pending(mine)
  local units = 0
  for _, lent in ipairs(mine.pending) do
    if lent[4] == '' and F.is_pod(lent[2]) then units = units + lent[3] end
  end
  return units
end

-- What the report says is written down. Answers the verdict: a(pplied), s(tale) or r(esync).
function F.hear()
  local mine = F.rec(X.gate)
  if not mine or X.said_inc ~= m.inc or X.said_epoch ~= mine.epoch then return F.welcome(mine) end
  if X.number <= mine.number then return 's' end
  F.rec_changed(mine)
  mine.number, mine.last, mine.hold = X.number, m.clock, X.hold_us
  if mine.syncing == 1 and X.part == 'c' then return 'r' end
  F.hear_terms(mine)
  F.hear_holds(mine)
  F.hear_used(mine)
  F.hear_rates(mine)
  F.hear_pods(mine)
  if X.part == 'l' then F.end_sync(mine) end
  F.hear_waiters()
  mine.idle = X.said_idle + F.credit_pending(mine)
  if mine.recall[1] and mine.recall[1] <= X.recalled then mine.recall = {} end
  return 'a'
end

-- Who has credit that could be recalled.
function F.note_idle()
  local mine = X.recs[X.gate]
  local idle = mine.syncing == 1 and 0 or mine.idle
  if idle == X.idle_noted then return end
  X.idle_noted = idle
  if idle == 0 then call('ZREM', X.I, X.gate) else call('ZADD', X.I, idle, X.gate) end
end
