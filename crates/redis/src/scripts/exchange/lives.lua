-- Part of exchange.lua: lives.

function F.begin(fresh)
  fresh.inc, fresh.server = X.nonce == '0' and '1' or X.nonce, X.server
  fresh.digests, fresh.kinds, fresh.fair = {}, 0, fresh.fair or 0
  fresh.scarce, fresh.sapis, fresh.claim, fresh.remains = 0, {}, {}, {}
  fresh.capacity, fresh.reserve, fresh.share, fresh.milli = 0, 0, 0, 0
  fresh.tokens, fresh.tokens_at = 0, fresh.clock
  fresh.pooled, fresh.outside, fresh.unfilled = 0, 0, 0
  fresh.bursts, fresh.tall, fresh.outs, fresh.apis, fresh.over = {}, {}, {}, {}, {}
  fresh.done, fresh.queued = 0, 0
  fresh.from, fresh.until_ = fresh.clock, fresh.clock + 1
  call('DEL', X.S, X.O, X.L, X.G, X.I)
  X.recs, X.holds, X.bals, X.puts, X.dels, X.accounts = {}, {}, {}, {}, {}, {}
  X.accounts_changed = true
  local mark = '#' .. fresh.inc
  call('ZADD', X.O, -1, mark)
  call('ZADD', X.L, '+inf', mark)
  call('ZADD', X.G, '+inf', mark)
  call('ZADD', X.I, -1, mark)
end

-- A missing key, another server or a state that ran back: a new life of the state begins.
function F.notice_loss(whole)
  local lost = not whole or m.server ~= X.server or (X.said_inc == m.inc and X.said_step > m.step)
  if lost then F.begin(m) end
  if m.clock < m.until_ then
    local past = X.past_us
    -- It knows of no life before, or has not heard of the loss yet.
    if X.said_inc == '0' then past = 0 elseif X.said_inc ~= m.inc then past = X.hold_us end
    m.until_ = max(m.until_, m.from + m.ttl + floor(m.ttl / 5) + past)
  end
end

function F.drop_waiters(id)
  local blob = F.get('w:' .. id)
  if not blob then return end
  local members = unpack_(blob)
  if #members > 0 then call('ZREM', X.L, unpack(members)) end
  F.del('w:' .. id)
end

function F.end_epoch(id)
  local one = F.rec(id)
  if not one then return end
  F.drop_waiters(id)
  m.queued = m.queued - one.queued
  local mine = F.held_by(one.epoch)
  for _, lent in ipairs(one.pending) do
    if lent[3] > 0 then mine.units[lent[2]], mine.changed = (mine.units[lent[2]] or 0) + lent[3], true end
  end
  local used = false
  for _, units in pairs(one.used) do used = used or units > 0 end
  if next(mine.units) or used then
    m.remains[#m.remains + 1] = { one.last + m.ttl + one.hold, id, one.epoch }
    F.put(fmt('u:%d', one.epoch), pack(one.used))
  else
    X.holds[one.epoch] = nil
    F.del(fmt('h:%d', one.epoch))
  end
  X.recs[id] = false
  F.del('g:' .. id)
  call('ZREM', X.G, id)
  call('ZREM', X.I, id)
  if F.forget_terms(one.digest) then F.merge_terms() end
end

-- Gives back of what a silent gate held, `left` accounts at most. True when nothing is left of it.
function F.release(one, left)
  local mine = F.held_by(one[3])
  for _, account in ipairs(F.sorted(mine.units)) do
    if left[1] == 0 then return false end
    left[1] = left[1] - 1
    X.touched = X.touched + 1
    local units = mine.units[account]
    mine.units[account], mine.changed = nil, true
    F.change(account, units, 0)
  end
  if left[1] == 0 then return false end
  for api, units in pairs(unpack_(F.get(fmt('u:%d', one[3])))) do F.use_changed(api, units, 0) end
  X.holds[one[3]] = nil
  F.del(fmt('h:%d', one[3]))
  F.del(fmt('u:%d', one[3]))
  return true
end

function F.by_gate(a, b)
  if a[2] ~= b[2] then return a[2] < b[2] end
  return a[3] < b[3]
end

function F.release_where(chosen, left)
  table.sort(m.remains, F.by_gate)
  local rest = {}
  for _, one in ipairs(m.remains) do
    if not (chosen(one) and F.release(one, left)) then rest[#rest + 1] = one end
  end
  m.remains = rest
end

function F.reap()
  for pod, till in pairs(m.outs) do
    if m.clock >= till then F.set_outside(pod, 0) end
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', X.G, '-inf', m.clock - m.ttl, 'LIMIT', 0, X.REAP_MAX)) do F.end_epoch(id) end
  if #m.remains > 0 then
    F.release_where(function(one) return m.clock >= one[1] end, { X.RELEASE_MAX })
  end
end

function F.begin_epoch()
  m.epochs = m.epochs + 1
  X.recs[X.gate] = {
    epoch = m.epochs, number = X.number, syncing = 1, last = m.clock, hold = X.hold_us, pending = {}, lent = 0,
    used = {}, idle = 0, recalls = 0, recall = {}, digest = '0', version = 0, done = 0, queued = 0, unspent = 0,
    avoid = {}, label = X.label,
  }
  call('ZADD', X.G, m.clock, X.gate)
end

-- A gate that this state does not know, or not in this life.
function F.welcome(mine)
  if not mine then
    F.begin_epoch()
  elseif X.number > mine.number and mine.syncing ~= 1 then
    F.end_epoch(X.gate)
    F.begin_epoch()
  end
  mine = X.recs[X.gate]
  mine.number = max(mine.number, X.number)
  if mine.syncing == 1 then mine.last, mine.hold = m.clock, X.hold_us end
  F.rec_changed(mine)
  return 'r'
end
