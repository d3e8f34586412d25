-- Part of exchange.lua: serving.

function F.lend(id, account, units, waiter, flags)
  local one = F.rec(id)
  one.lent = one.lent + 1
  one.pending[#one.pending + 1] = { one.lent, account, units, waiter, flags }
  F.rec_changed(one)
  local balance, had, place = F.balance(account), 0, nil
  if balance then had, place = F.holding(balance, one.epoch) end
  F.change(account, balance, one.epoch, place, had, had + units)
  X.touched = X.touched + 1
end

function F.is_listed(one, account)
  local pods = X.listed[one.digest]
  if not pods then
    pods = {}
    local text = F.get('t:' .. one.digest)
    if text then
      for _, pod in ipairs(from_json(text).pods) do pods['p:' .. pod[1]] = true end
    end
    X.listed[one.digest] = pods
  end
  return pods[account]
end

-- A pod that this gate may not be lent: claimed by a better rank, unusable there, or not in its terms.
function F.is_barred(id, account)
  if m.claim[4] == account then return true end
  local one = F.rec(id)
  for _, pod in ipairs(one.avoid) do
    if pod == account then return true end
  end
  return m.kinds > 1 and not F.is_listed(one, account)
end

-- The first pod of the index, in its order, that passes `test`.
function F.first_open(command, from, to, test)
  F.index()
  local skip, size = 0, 1
  while true do
    local pods = call(command, X.O, from, to, 'LIMIT', skip, size)
    for _, account in ipairs(pods) do
      if test(account) then return account end
    end
    if #pods < size then return nil end
    skip, size = skip + size, 16
  end
end

function F.narrowest(weight, test)
  return F.first_open('ZRANGEBYSCORE', max(1, weight), '+inf', test)
end

function F.widest(test)
  return F.first_open('ZREVRANGEBYSCORE', '+inf', 1, test)
end

-- The pod that an ask is pinned to, if `room` finds enough there.
function F.pinned(id, w, room)
  local account = 'p:' .. w.pin
  return room(account) >= w.weight and not F.is_barred(id, account) and account or nil
end

function F.place(id, w)
  if w.pin ~= '' then return F.pinned(id, w, F.open) end
  return F.narrowest(w.weight, function(account) return not F.is_barred(id, account) end)
end

function F.place_burst(id, w)
  if w.pin ~= '' then return F.pinned(id, w, F.burst_room) end
  local best, most
  for _, one in ipairs(m.bursts) do
    local account = one[1]
    local room = F.burst_room(account)
    if not F.is_barred(id, account) and (not most or room > most) then best, most = account, room end
  end
  return best and most >= w.weight and best or nil
end

function F.trickle_bears(weight)
  local one = F.balance('t')
  return m.milli > 0 and weight <= min(m.share, one and one[1] or 0)
end

-- Conditions 1 and 3, or the trickle, and a better rank's claim. Answers the pod, and whether tokens were needed.
function F.find(w, unmet)
  local hopeless = w.pin == '' and unmet.weight and w.weight >= unmet.weight
  if F.pool_has(w.api, w.weight) then
    return not hopeless and F.place(w.gate, w) or nil, false
  end
  if unmet.tokens_kept or not F.trickle_bears(w.weight) then return nil end
  local pod = not hopeless and F.place(w.gate, w) or F.place_burst(w.gate, w)
  if not pod then return nil end
  if m.tokens < w.weight * MICRO or F.open('t') < w.weight then
    unmet.tokens_kept = true
    return nil
  end
  return pod, true
end

function F.claimable(w, before)
  local function able(account)
    local one = F.balance(account)
    return one and one[1] >= w.weight and not F.is_barred(w.gate, account)
  end
  local best = F.widest(able)
  local stays = before and able(before) and before or nil
  if best and stays then return F.open(best) > F.open(stays) and best or stays end
  if best or stays then return best or stays end
  for _, one in ipairs(m.tall) do
    if able(one[2]) then return one[2] end
  end
end

-- The best unmet waiter claims a pod, once its turn has come: a rank is an arrival and what its weight may be passed by.
function F.stake(w, before)
  if m.claim[1] or (m.fair == 0 and w.rank > m.clock) then return end
  local same = before[2] == w.gate and before[3] == w.ticket
  local pod
  if w.pin ~= '' then pod = 'p:' .. w.pin else pod = F.claimable(w, same and before[4] or nil) end
  if pod then m.claim = { w.rank, w.gate, w.ticket, pod } end
end

function F.lend_to_waiter(w, pod, trickle)
  local special = trickle or F.ordinary() < w.weight
  local flags = (special and 1 or 0) + (trickle and 2 or 0)
  if F.balance('a:' .. w.api) then F.lend(w.gate, 'a:' .. w.api, w.weight, '', flags) end
  if trickle then
    m.tokens = m.tokens - w.weight * MICRO
    F.lend(w.gate, 't', w.weight, '', flags)
  end
  F.lend(w.gate, pod, w.weight, w.ticket, flags)
end

function F.is_served(w)
  for _, lent in ipairs(F.rec(w.gate).pending) do
    if lent[4] == w.ticket then return true end
  end
  return false
end

function F.unclaimed(account)
  return account ~= m.claim[4]
end

-- Whether anything is open that is not claimed. Asked for each unmet waiter, and changed only by what is lent or claimed.
function F.some_open()
  if X.opened == nil or X.opened_for ~= m.claim[4] then
    X.opened, X.opened_for = F.widest(F.unclaimed) ~= nil, m.claim[4]
  end
  return X.opened
end

function F.serve_one(w, unmet, before, told)
  if F.is_served(w) then return true end
  local limit = F.balance('a:' .. w.api)
  if limit and F.open_of(limit) < w.weight then
    unmet.apis[#unmet.apis + 1] = w
    return true
  end
  local pod, trickle = F.find(w, unmet)
  if pod then
    F.lend_to_waiter(w, pod, trickle)
    told[w.gate] = true
    return true
  end
  F.stake(w, before)
  if w.pin == '' and (not unmet.weight or w.weight < unmet.weight) and not F.narrowest(w.weight, F.unclaimed) then
    unmet.weight = w.weight
  end
  unmet.pods[#unmet.pods + 1] = w
  -- Nothing is open but what is claimed, and more are unmet than recalls may stand.
  return #unmet.pods < X.gates or m.share > 0 or F.some_open()
end

function F.serve_waiters(told)
  local before, unmet, from, chunk = m.claim, { pods = {}, apis = {} }, 0, 8
  m.claim = {}
  -- Nobody but the mark.
  if call('ZCARD', X.L) == 1 then return unmet end
  while from < LOOK_MAX do
    chunk = min(chunk, LOOK_MAX - from)
    local line = call('ZRANGE', X.L, from, from + chunk - 1, 'WITHSCORES')
    for i = 1, #line, 2 do
      local id, ticket, weight, api, pin = match(line[i], '^(%x+)\31 *(%d+)\31(%d+)\31([^\31]*)\31(.*)$')
      if not id then return unmet end
      local w = { rank = num(line[i + 1]), gate = id, ticket = ticket, weight = num(weight), api = api, pin = pin }
      if not F.serve_one(w, unmet, before, told) then return unmet end
    end
    if #line < 2 * chunk then return unmet end
    from = from + chunk
  end
  return unmet
end

function F.recall_from(id, units, api, told)
  local one = F.rec(id)
  one.recalls = one.recalls + 1
  one.recall = { one.recalls, units, api }
  if api == '' then
    one.idle = max(0, one.idle - units)
    call('ZADD', X.I, one.idle, id)
    if id == X.gate then X.idle_noted = one.idle end
  end
  F.rec_changed(one)
  told[id] = true
end

-- The gate with most idle credit, of those from which nothing is recalled yet.
function F.richest(but)
  local skip = 0
  while true do
    local ids = call('ZREVRANGEBYSCORE', X.I, '+inf', 1, 'LIMIT', skip, 4)
    for _, id in ipairs(ids) do
      if id ~= but and not F.rec(id).recall[1] then return id end
    end
    if #ids < 4 then return nil end
    skip = skip + 4
  end
end

function F.spare(one, api)
  local balance = F.balance('a:' .. api)
  return max(0, (balance and F.holding(balance, one.epoch) or 0) - (one.used[api] or 0))
end

function F.recall(unmet, told)
  local nobody = {}            -- gates for whose waiters nobody is left to ask
  for i = 1, min(#unmet.pods, X.gates) do
    local w = unmet.pods[i]
    local id = not nobody[w.gate] and F.richest(w.gate)
    if id then F.recall_from(id, w.weight, '', told) else nobody[w.gate] = true end
  end
  for i = 1, min(#unmet.apis, X.gates) do
    local w = unmet.apis[i]
    local best, most
    for _, id in ipairs(F.everybody()) do
      local one = id ~= w.gate and F.rec(id)
      if one and not one.recall[1] and one.syncing ~= 1 then
        local units = F.spare(one, w.api)
        if units > 0 and (not most or units > most or (units == most and id > best)) then best, most = id, units end
      end
    end
    if best then F.recall_from(best, w.weight, w.api, told) end
  end
end

function F.target()
  if m.scarce == 1 then return 0 end
  return floor(F.ordinary() / (X.gates + 1))
end

-- Whole pods where possible: scattered single units fit no heavy ask.
function F.give_credit(mine)
  local aim = F.target()
  if mine.syncing == 1 or mine.idle >= aim then return end
  local want = min(aim - mine.idle, F.ordinary())
  local barred, given = 0, 0
  while want > 0 and given < CREDIT_PODS_MAX do
    F.index()
    local pods = call('ZREVRANGEBYSCORE', X.O, '+inf', 1, 'WITHSCORES', 'LIMIT', barred, 16)
    if #pods == 0 then return end
    for i = 1, #pods, 2 do
      local account = pods[i]
      if F.is_barred(X.gate, account) then
        barred = barred + 1
      elseif want > 0 and given < CREDIT_PODS_MAX then
        local units = min(num(pods[i + 1]), want)
        F.lend(X.gate, account, units, '', 0)
        mine.idle = mine.idle + units
        want, given = want - units, given + 1
      end
    end
  end
end

function F.give_allowances(mine)
  if mine.syncing == 1 or m.limited == 0 then return end
  for _, lent in ipairs(mine.pending) do
    if F.is_api(lent[2]) then return end
  end
  local scarce = {}
  for _, api in ipairs(m.sapis) do scarce[api] = true end
  for _, api in ipairs(F.sorted(mine.used)) do
    if not scarce[api] and F.balance('a:' .. api) then
      local aim = floor(F.open('a:' .. api) / (X.gates + 1))
      local has = F.spare(mine, api)
      if has < floor(aim / 4) then F.lend(X.gate, 'a:' .. api, aim - has, '', 0) end
    end
  end
end

function F.said_claim()
  if not m.claim[1] then return '', 0 end
  return string.sub(m.claim[4], 3), (m.fair == 1 and 0 or m.clock) - m.claim[1]
end

-- A list in an answer: its length, then its entries.
function F.append(words, list)
  words[#words + 1] = #list
  for _, one in ipairs(list) do words[#words + 1] = one end
end

function F.append_lent(words, one)
  words[#words + 1] = #one.pending
  for _, lent in ipairs(one.pending) do
    for i = 1, 5 do words[#words + 1] = lent[i] end
  end
end

function F.push(told)
  for _, id in ipairs(F.sorted(told)) do
    local one = F.rec(id)
    local kept, age = F.said_claim()
    local words = {
      m.inc, one.epoch, one.recall[1] or 0, one.recall[2] or 0, one.recall[3] or '', kept, fmt('%.0f', age),
      m.scarce,
    }
    F.append_lent(words, one)
    call('PUBLISH', X.A[1] .. id, concat(words, '\n'))
    X.pushes = X.pushes + 1
  end
end

-- A new claim is told to those who hold units of its pod.
function F.tell_holders(told)
  local pod = F.balance(m.claim[4])
  if not pod then return end
  for _, id in ipairs(F.everybody()) do
    local one = F.rec(id)
    if one and F.holding(pod, one.epoch) > 0 then told[id] = true end
  end
end

function F.serve()
  local told, before = {}, m.claim[4]
  F.fill()
  local unmet = F.serve_waiters(told)
  local scarce = #unmet.pods > 0 and 1 or 0
  if scarce > m.scarce then
    -- What comes free at a gate that last spoke of none would idle there beside the waiter until it speaks again.
    for _, id in ipairs(F.everybody()) do
      local one = F.rec(id)
      if one and one.warned == 0 then told[id] = true end
    end
  end
  m.scarce = scarce
  local apis = {}
  for _, w in ipairs(unmet.apis) do apis[w.api] = true end
  if next(apis) or F.some('sapis', m.some_sapis) then
    F.read_cold()
    m.sapis = F.sorted(apis)
    X.cold_changed = true
  end
  F.recall(unmet, told)
  local mine = F.rec(X.gate)
  if mine then
    F.give_credit(mine)
    F.give_allowances(mine)
  end
  if m.claim[4] and m.claim[4] ~= before then F.tell_holders(told) end
  told[X.gate] = nil
  for id in pairs(told) do
    local one = F.rec(id)
    if one.warned < scarce then
      one.warned = scarce
      F.rec_changed(one)
    end
  end
  if mine then mine.warned = scarce end
  F.push(told)
end
