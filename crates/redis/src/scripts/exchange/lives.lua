-- Part of exchange.lua: lives.

function F.begin(fresh)
  fresh.inc, fresh.server = X.nonce == '0' and '1' or X.nonce, X.server
  fresh.kinds, fresh.fair, fresh.scarce, fresh.tight = 0, fresh.fair or 0, 0, 0
  fresh.capacity, fresh.reserve, fresh.share, fresh.milli = 0, 0, 0, 0
  fresh.tokens, fresh.tokens_at = 0, fresh.clock
  fresh.pooled, fresh.outside, fresh.unfilled, fresh.limited = 0, 0, 0, 0
  fresh.done, fresh.queued = 0, 0
  fresh.from, fresh.until_, fresh.reap_at = fresh.clock, fresh.clock + 1, NEVER
  fresh.some_over, fresh.some_outs, fresh.some_remains, fresh.some_apis, fresh.some_sapis = 0, 0, 0, 0, 0
  fresh.claim = {}
  for part in pairs(COLD) do rawset(fresh, part, {}) end
  X.cold_read, X.cold_changed = true, true
  call('DEL', X.S, X.O, X.L, X.G, X.I)
  X.recs, X.bals, X.puts, X.dels, X.fetched, X.accounts = {}, {}, {}, {}, {}, {}
  X.opens, X.stale, X.idle_noted = {}, false, 0
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

-- A gate's waiters, one a line, as a list.
function F.lines(text)
  local list = {}
  for line in string.gmatch(text, '[^\n]+') do list[#list + 1] = line end
  return list
end

function F.drop_waiters(id)
  local said = F.get('w:' .. id)
  if not said then return end
  local members = F.lines(said)
  for i, line in ipairs(members) do members[i] = id .. US .. line end
  if #members > 0 then call('ZREM', X.L, unpack(members)) end
  F.del('w:' .. id)
end

-- Names of the accounts that an epoch holds any of. Looks at every account, which only the end of an epoch does.
function F.held_by(epoch)
  local held = {}
  for account in pairs(F.all_balances()) do
    local one = F.balance(account)
    if one and F.holding(one, epoch) > 0 then held[#held + 1] = account end
  end
  sort(held)
  return held
end

function F.end_epoch(id)
  local one = F.rec(id)
  if not one then return end
  F.drop_waiters(id)
  m.queued = m.queued - one.queued
  local held, used = F.held_by(one.epoch), false
  for _, units in pairs(one.used) do used = used or units > 0 end
  if #held > 0 or used then
    m.remains[#m.remains + 1] = { one.last + m.ttl + one.hold, id, one.epoch }
    X.cold_changed = true
    F.put(fmt('h:%d', one.epoch), pack(held))
    F.put(fmt('u:%d', one.epoch), pack(one.used))
  end
  X.recs[id] = false
  F.del('g:' .. id)
  call('ZREM', X.G, id)
  call('ZREM', X.I, id)
  if F.forget_terms(one.digest) then F.merge_terms() end
end

-- Gives back of what a silent gate held, `left` accounts at most. True when nothing is left of it.
function F.release(one, left)
  local epoch = one[3]
  local names = fmt('h:%d', epoch)
  local held = unpack_(F.get(names))
  for i, account in ipairs(held) do
    local balance, units, place = F.balance(account), 0, nil
    if balance then units, place = F.holding(balance, epoch) end
    if units > 0 then
      if left[1] == 0 then
        F.put(names, pack({ unpack(held, i) }))
        return false
      end
      left[1] = left[1] - 1
      X.touched = X.touched + 1
      F.change(account, balance, epoch, place, units, 0)
    end
  end
  if left[1] == 0 then
    F.put(names, pack({}))
    return false
  end
  local used = fmt('u:%d', epoch)
  for api, units in pairs(unpack_(F.get(used))) do F.use_changed(api, units, 0) end
  F.del(names)
  F.del(used)
  return true
end

function F.by_gate(a, b)
  if a[2] ~= b[2] then return a[2] < b[2] end
  return a[3] < b[3]
end

function F.release_where(chosen, left)
  sort(m.remains, F.by_gate)
  X.cold_changed = true
  local rest = {}
  for _, one in ipairs(m.remains) do
    if not (chosen(one) and F.release(one, left)) then rest[#rest + 1] = one end
  end
  m.remains = rest
end

function F.reap()
  if F.some('outs', m.some_outs) then
    for pod, till in pairs(m.outs) do
      if m.clock >= till then F.set_outside(pod, 0) end
    end
  end
  if m.clock >= m.reap_at then
    for _, id in ipairs(call('ZRANGEBYSCORE', X.G, '-inf', m.clock - m.ttl, 'LIMIT', 0, REAP_MAX)) do F.end_epoch(id) end
    local first = call('ZRANGE', X.G, 0, 0, 'WITHSCORES')
    -- Gates only speak later than they did, so none falls silent before this. The mark alone is at infinity.
    m.reap_at = min(NEVER, num(first[2]) + m.ttl)
  end
  if F.some('remains', m.some_remains) then
    for _, one in ipairs(m.remains) do
      if m.clock >= one[1] then
        F.release_where(function(other) return m.clock >= other[1] end, { RELEASE_MAX })
        break
      end
    end
  end
end

function F.begin_epoch()
  m.epochs = m.epochs + 1
  X.recs[X.gate] = {
    epoch = m.epochs, number = X.number, syncing = 1, last = m.clock, hold = X.hold_us, pending = {}, lent = 0,
    used = {}, idle = 0, recalls = 0, recall = {}, digest = '0', version = 0, done = 0, queued = 0, unspent = 0,
    avoid = {}, label = X.label, in_use = 0, waiting = 0, warned = 0,
  }
  X.idle_noted = 0
  call('ZADD', X.G, m.clock, X.gate)
  m.reap_at = min(m.reap_at, m.clock + m.ttl)
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
