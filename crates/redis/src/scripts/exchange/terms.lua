-- Part of exchange.lua: terms.

function F.is_none(value)
  return value == nil or value < 0
end

-- The stricter of each figure. A pod that only some list has their limits.
function F.stricter(list)
  local all = { fair = 0, cap = -1, reserve = 0, share = 0, pods = {}, apis = {}, said = {} }
  for _, one in ipairs(list) do
    all.fair = max(all.fair, one.fair)
    if not F.is_none(one.cap) then all.cap = F.is_none(all.cap) and one.cap or min(all.cap, one.cap) end
    all.reserve = max(all.reserve, one.reserve)
    all.share = max(all.share, one.share)
    all.rate = all.rate and min(all.rate, one.rate) or one.rate
    all.most = all.most and min(all.most, one.most) or one.most
    for _, pod in ipairs(one.pods) do
      local mine = all.pods[pod[1]]
      all.pods[pod[1]] = mine and { min(mine[1], pod[2]), min(mine[2], pod[3]) } or { pod[2], pod[3] }
    end
    for _, api in ipairs(one.apis) do
      local mine = all.apis[api[1]] or { 0, -1, 1 }
      local limit = api[3]
      if F.is_none(limit) then limit = mine[2] elseif not F.is_none(mine[2]) then limit = min(limit, mine[2]) end
      all.apis[api[1]] = { max(mine[1], api[2]), limit, min(mine[3], api[4]) }
      all.said[api[1]] = (all.said[api[1]] or 0) + 1
    end
  end
  for api, one in pairs(all.apis) do
    if all.said[api] < #list then one[3] = 0 end
  end
  return all
end

function F.configure_apis(all)
  local limited, count = {}, 0
  for _, rule in pairs(m.apis) do rule[1], rule[2] = 0, 0 end
  for api, one in pairs(all.apis) do
    local rule = m.apis[api] or { 0, 0, 0 }
    rule[1], rule[2] = one[1], one[3]
    m.apis[api] = rule
    if not F.is_none(one[2]) then
      limited['a:' .. api], count = true, count + 1
      m.limited = max(m.limited, count)  -- without any, none is looked for
      local mine = F.balance('a:' .. api) or F.make_balance('a:' .. api)
      mine[1] = one[2]
    end
  end
  for api, rule in pairs(m.apis) do
    if rule[1] == 0 and rule[2] == 0 and rule[3] == 0 then m.apis[api] = nil end
  end
  return limited, count
end

-- Without a limit there is nothing to count: nobody holds it any more.
function F.forget_account(account)
  for _, id in ipairs(F.everybody()) do
    local one = F.rec(id)
    for _, lent in ipairs(one and one.pending or {}) do
      if lent[2] == account then
        lent[3] = 0
        F.rec_changed(one)
      end
    end
  end
end

function F.sum_up()
  m.unfilled = 0
  for _, rule in pairs(m.apis) do m.unfilled = m.unfilled + max(0, rule[1] - rule[3]) end
  m.over, X.opens, X.stale = {}, {}, true
  call('DEL', X.O)
  call('ZADD', X.O, -1, '#' .. m.inc)
  for account in pairs(X.accounts) do
    local one = X.bals[account]
    if one[2] + one[3] > one[1] then m.over[account] = 1 end
    if F.is_pod(account) and F.open_of(one) > 0 then X.opens[account] = F.open_of(one) end
  end
end

function F.configure(all)
  X.cold_changed = true
  m.fair = all.fair
  local declared = 0
  for _, pod in pairs(all.pods) do declared = declared + pod[1] end
  m.capacity = F.is_none(all.cap) and declared or min(declared, all.cap)
  m.reserve = all.reserve
  F.fill()
  m.share, m.milli = all.share, all.rate
  m.tokens = min(m.tokens, m.share * MICRO)
  for account in pairs(F.all_balances()) do
    local one = F.balance(account)
    one[1], one.changed = 0, true
  end
  m.bursts, m.tall = {}, {}
  for _, name in ipairs(F.sorted(all.pods)) do
    local account, pod = 'p:' .. name, all.pods[name]
    local one = F.balance(account) or F.make_balance(account)
    one[1], one.changed = pod[1], true
    if pod[2] > 0 then m.bursts[#m.bursts + 1] = { account, pod[2] } end
    if #m.tall == 0 or pod[1] > m.tall[#m.tall][1] then m.tall[#m.tall + 1] = { pod[1], account } end
  end
  if all.share > 0 then
    local one = F.balance('t') or F.make_balance('t')
    one[1], one.changed = all.most, true
  end
  local limited, count = F.configure_apis(all)
  for _, account in ipairs(F.sorted(X.accounts)) do
    local one = X.bals[account]
    local gone = F.is_api(account) and not limited[account]
    if gone or (one[1] == 0 and one[2] == 0 and one[3] == 0) then
      if gone then F.forget_account(account) end
      X.bals[account] = false
      X.accounts[account] = nil
      X.accounts_changed = true
      F.del('b:' .. account)
    else
      one.changed = true
    end
  end
  m.limited = count
  F.sum_up()
  m.tight = F.is_pool_over() and 1 or 0
end

function F.merge_terms()
  local list = {}
  for _, one in ipairs(F.sorted(m.digests)) do list[#list + 1] = from_json(F.get('t:' .. one)) end
  if #list > 0 then F.configure(F.stricter(list)) end
end

-- One gate fewer obeys these. True if nobody does any more.
function F.forget_terms(one)
  local count = m.digests[one]
  X.cold_changed = true
  if not count then return false end
  if count > 1 then
    m.digests[one] = count - 1
    return false
  end
  m.digests[one] = nil
  m.kinds = m.kinds - 1
  F.del('t:' .. one)
  return true
end

function F.hear_terms(mine)
  local before = mine.digest
  if X.digest == before then return end
  if not m.digests[X.digest] then
    if X.terms == '' then return end
    F.put('t:' .. X.digest, X.terms)
    m.kinds = m.kinds + 1
  end
  X.cold_changed = true
  local is_new = not m.digests[X.digest]
  m.digests[X.digest] = (m.digests[X.digest] or 0) + 1
  mine.digest = X.digest
  local unused = F.forget_terms(before)
  if unused or is_new then F.merge_terms() end
end
