-- Part of exchange.lua: balances.

function F.is_pod(account)
  return string.byte(account) == 112
end

function F.is_api(account)
  return string.byte(account) == 97
end

function F.open_of(one)
  return max(0, one[1] - one[2] - one[3])
end

function F.open(account)
  local one = F.balance(account)
  return one and F.open_of(one) or 0
end

function F.settle(account, one, before)
  one[4] = true
  m.over[account] = one[2] + one[3] > one[1] and 1 or nil
  if not F.is_pod(account) then return end
  local after = F.open_of(one)
  if after == before then return end
  if after > 0 then call('ZADD', X.O, after, account) else call('ZREM', X.O, account) end
end

-- What is held of an account becomes `new` where it was `old`. An api without a limit has no account.
function F.change(account, old, new)
  if old == new then return end
  local one = F.balance(account)
  if not one then
    if F.is_api(account) then return end
    one = F.make_balance(account)
  end
  local before = F.open_of(one)
  one[2] = one[2] + new - old
  if F.is_pod(account) then m.pooled = m.pooled + new - old end
  F.settle(account, one, before)
end

function F.set_outside(account, units)
  m.outs[account] = nil
  local one = F.balance(account)
  if not one then return end
  local before = F.open_of(one)
  m.outside = m.outside + units - one[3]
  one[3] = units
  F.settle(account, one, before)
end

function F.use_changed(api, old, new)
  local rule = m.apis[api] or { 0, 0, 0 }
  m.apis[api] = rule
  local before = max(0, rule[1] - rule[3])
  rule[3] = rule[3] + new - old
  m.unfilled = m.unfilled + max(0, rule[1] - rule[3]) - before
  if rule[1] == 0 and rule[2] == 0 and rule[3] == 0 then m.apis[api] = nil end
end

-- T of condition 3.
function F.pool_used()
  local trickle = F.balance('t')
  return m.pooled + m.outside - min(trickle and trickle[2] or 0, m.pooled)
end

function F.ordinary()
  return max(0, max(0, m.capacity - m.share) - (F.pool_used() + m.reserve + m.unfilled))
end

function F.pool_has(api, weight)
  local rule = m.apis[api]
  local own = rule and max(0, rule[1] - rule[3]) or 0
  local kept = m.unfilled - own
  if not rule or rule[2] == 0 then kept = kept + m.reserve end
  return F.pool_used() + weight + kept <= max(0, m.capacity - m.share)
end

function F.fill()
  local gained = floor((m.clock - m.tokens_at) * m.milli / 1000)
  if gained > 0 or m.milli == 0 then
    m.tokens = min(m.tokens + gained, m.share * X.MICRO)
    m.tokens_at = m.clock
  end
end

function F.burst_room(account)
  local burst = 0
  for _, one in ipairs(m.bursts) do
    if one[1] == account then burst = one[2] end
  end
  local one = F.balance(account)
  -- A pod that drains bears nothing more.
  if not one or one[1] == 0 then return 0 end
  return max(0, one[1] + burst - one[2] - one[3])
end
