-- Part of exchange.lua: balances.

function F.is_pod(account)
  return byte(account) == 112
end

function F.is_api(account)
  return byte(account) == 97
end

function F.open_of(one)
  return max(0, one[1] - one[2] - one[3])
end

function F.open(account)
  local one = F.balance(account)
  return one and F.open_of(one) or 0
end

-- The index of open pods is brought up to date: before it is read, and at the end.
function F.index()
  if not X.stale then return end
  X.stale = false
  local come, gone = {}, {}
  for account, open in pairs(X.opens) do
    if open > 0 then come[#come + 1], come[#come + 2] = open, account else gone[#gone + 1] = account end
  end
  X.opens = {}
  for from = 1, #come, MANY do call('ZADD', X.O, unpack(come, from, min(from + MANY - 1, #come))) end
  for from = 1, #gone, MANY do call('ZREM', X.O, unpack(gone, from, min(from + MANY - 1, #gone))) end
end

function F.settle(account, one, before)
  one.changed = true
  local is_over = one[2] + one[3] > one[1]
  if is_over or F.some('over', m.some_over) then
    local over = m.over
    if is_over ~= (over[account] ~= nil) then
      over[account] = is_over and 1 or nil
      X.cold_changed = true
    end
  end
  if byte(account) ~= 112 then return end
  local after = one[1] - one[2] - one[3]
  if after < 0 then after = 0 end
  if after ~= before then X.opens[account], X.stale, X.opened = after, true, nil end
end

-- What an epoch holds of an account, lent units on their way included, becomes `new` where it was `old`, at this place of
-- the balance if it has one. An api without a limit has no account.
function F.change(account, one, epoch, at, old, new)
  if old == new then return end
  if not one then
    if byte(account) == 97 then return end
    one = F.make_balance(account)
  end
  local before = one[1] - one[2] - one[3]
  if before < 0 then before = 0 end
  one[2] = one[2] + new - old
  if at and new > 0 then one[at + 1] = new else F.set_holding(one, epoch, at, new) end
  if byte(account) == 112 then m.pooled = m.pooled + new - old end
  F.settle(account, one, before)
end

function F.set_outside(account, units)
  m.outs[account] = nil
  X.cold_changed = true
  local one = F.balance(account)
  if not one then return end
  local before = F.open_of(one)
  m.outside = m.outside + units - one[3]
  one[3] = units
  F.settle(account, one, before)
end

function F.use_changed(api, old, new)
  if old == new and m.apis[api] then return end
  local rule = m.apis[api] or { 0, 0, 0 }
  m.apis[api] = rule
  local before = max(0, rule[1] - rule[3])
  rule[3] = rule[3] + new - old
  m.unfilled = m.unfilled + max(0, rule[1] - rule[3]) - before
  if rule[1] == 0 and rule[2] == 0 and rule[3] == 0 then m.apis[api] = nil end
  X.cold_changed = true
end

-- T of condition 3.
function F.pool_used()
  local trickle = F.balance('t')
  return m.pooled + m.outside - min(trickle and trickle[2] or 0, m.pooled)
end

function F.ordinary()
  return max(0, max(0, m.capacity - m.share) - (F.pool_used() + m.reserve + m.unfilled))
end

-- Whether more is held than condition 3 leaves ordinary apis.
function F.is_pool_over()
  return F.pool_used() + m.reserve + m.unfilled > max(0, m.capacity - m.share)
end

function F.pool_has(api, weight)
  local rule = F.some('apis', m.some_apis) and m.apis[api]
  local own = rule and max(0, rule[1] - rule[3]) or 0
  local kept = m.unfilled - own
  if not rule or rule[2] == 0 then kept = kept + m.reserve end
  return F.pool_used() + weight + kept <= max(0, m.capacity - m.share)
end

function F.fill()
  local gained = floor((m.clock - m.tokens_at) * m.milli / 1000)
  if gained > 0 or m.milli == 0 then
    m.tokens = min(m.tokens + gained, m.share * MICRO)
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
