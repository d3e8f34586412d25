--!lua
-- One exchange of one gate with the pool's ledger. The Rust twin is `Keeper::exchange` in crates/core/src/keeper.rs:
-- same steps, same order, same names; a test compares the two reply by reply and state by state.
--
-- KEYS (one hash tag, so one slot)
--   1 state     hash: m = the ledger's own figures; g:GATE = a gate's record; h:EPOCH = what it holds, by account;
--               u:EPOCH = what apis used of a gate that fell silent; w:GATE = its waiters in `line`;
--               b:ACCOUNT = "limit held outside", units; B = names of all accounts; t:DIGEST = terms, JSON
--   2 open      zset: pods with units that nobody holds, by those units
--   3 line      zset: waiters of all gates, by rank (us on the ledger's clock; virtual tags under `fair`)
--   4 seen      zset: gates, by the ledger's clock at their last exchange, us
--   5 idle      zset: gates, by their idle credit, units
--   6 document  hash, read only here: v = version of the pool's document
--   2 to 5 hold one more member, `#INCARNATION`: a key that was lost is noticed by its absence.
-- ARGV and reply: crates/redis/src/codec.rs. Units are integers, times are microseconds. Accounts are named a:API (its
-- max), p:POD (its capacity) and t (the trickle).
-- No key expires: only the ledger's clock ends anything, and it advances by at most a heartbeat per exchange.

local S, O, L, G, I, D = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local A, call, pack, unpack_ = ARGV, redis.call, cmsgpack.pack, cmsgpack.unpack
local num, fmt, max, min, floor = tonumber, string.format, math.max, math.min, math.floor
local US = string.char(31)

local REAP_MAX, RELEASE_MAX, CREDIT_PODS_MAX, LOOK_MAX, PART_MAX = 4, 64, 64, 256, 64
local OUTSIDE_US, GATE_PACE_US, MICRO = 1000000, 100, 1000000

local time = call('TIME')
local now = num(time[1]) * 1000000 + num(time[2])

local gate, said_inc, said_epoch, number = A[2], A[3], num(A[4]), num(A[5])
local nonce, server, said_step, applied = A[6], A[7], num(A[8]), num(A[9])
local said_version, digest, part, said_idle = num(A[10]), A[11], A[12], num(A[13])
local recalled, hold_us, past_us, said_ttl = num(A[14]), num(A[15]), num(A[16]), num(A[17])
local said_done, said_queued, said_vtime = num(A[18]), num(A[19]), num(A[20])
local said_unspent, leaving, label, terms = num(A[21]), A[22] == '1', A[23], A[26]

local pushes, touched = 0, 0

------------------------------------------------------------------ what is read once and written once

local m
local puts, dels = {}, {}        -- fields of the state to write and to delete at the end
local recs, holds, bals = {}, {}, {}

local function put(field, value)
  puts[field] = value
  dels[field] = nil
end

local function del(field)
  puts[field] = nil
  dels[field] = true
end

local function get(field)
  if puts[field] then return puts[field] end
  if dels[field] then return false end
  return call('HGET', S, field)
end

-- A gate's record, or false.
local function rec(id)
  local one = recs[id]
  if one == nil then
    local blob = call('HGET', S, 'g:' .. id)
    one = blob and unpack_(blob) or false
    recs[id] = one
  end
  return one
end

local function rec_changed(one)
  one.changed = true
end

-- What an epoch holds: account -> units, none of them 0.
local function held_by(epoch)
  local one = holds[epoch]
  if one == nil then
    local blob = get(fmt('h:%d', epoch))
    one = { units = blob and unpack_(blob) or {} }
    holds[epoch] = one
  end
  return one
end

-- { limit, held, outside } of an account, or false.
local function balance(account)
  local one = bals[account]
  if one == nil then
    local text = call('HGET', S, 'b:' .. account)
    one = false
    if text then
      local limit, held, outside = string.match(text, '^(%d+) (%d+) (%d+)$')
      one = { num(limit), num(held), num(outside) }
    end
    bals[account] = one
  end
  return one
end

local accounts               -- names of all accounts, once somebody needs them
local accounts_changed = false
local function all_accounts()
  if not accounts then
    local blob = call('HGET', S, 'B')
    accounts = blob and unpack_(blob) or {}
  end
  return accounts
end

local function make_balance(account)
  local one = { 0, 0, 0 }
  bals[account] = one
  all_accounts()[account] = 1
  accounts_changed = true
  return one
end

local function sorted(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

------------------------------------------------------------------ balances

local function is_pod(account)
  return string.byte(account) == 112
end

local function open_of(one)
  return max(0, one[1] - one[2] - one[3])
end

local function open(account)
  local one = balance(account)
  return one and open_of(one) or 0
end

local function settle(account, one, before)
  one[4] = true
  m.over[account] = one[2] + one[3] > one[1] and 1 or nil
  if not is_pod(account) then return end
  local after = open_of(one)
  if after == before then return end
  if after > 0 then call('ZADD', O, after, account) else call('ZREM', O, account) end
end

-- What is held of an account becomes `new` where it was `old`. An api without a limit has no account.
local function change(account, old, new)
  if old == new then return end
  local one = balance(account)
  if not one then
    if string.byte(account) == 97 then return end
    one = make_balance(account)
  end
  local before = open_of(one)
  one[2] = one[2] + new - old
  if is_pod(account) then m.pooled = m.pooled + new - old end
  settle(account, one, before)
end

local function set_outside(account, units)
  m.outs[account] = nil
  local one = balance(account)
  if not one then return end
  local before = open_of(one)
  m.outside = m.outside + units - one[3]
  one[3] = units
  settle(account, one, before)
end

local function use_changed(api, old, new)
  local rule = m.apis[api] or { 0, 0, 0 }
  m.apis[api] = rule
  local before = max(0, rule[1] - rule[3])
  rule[3] = rule[3] + new - old
  m.unfilled = m.unfilled + max(0, rule[1] - rule[3]) - before
  if rule[1] == 0 and rule[2] == 0 and rule[3] == 0 then m.apis[api] = nil end
end

-- T of condition 3.
local function pool_used()
  local trickle = balance('t')
  return m.pooled + m.outside - min(trickle and trickle[2] or 0, m.pooled)
end

local function ordinary()
  return max(0, max(0, m.capacity - m.share) - (pool_used() + m.reserve + m.unfilled))
end

local function pool_has(api, weight)
  local rule = m.apis[api]
  local own = rule and max(0, rule[1] - rule[3]) or 0
  local kept = m.unfilled - own
  if not rule or rule[2] == 0 then kept = kept + m.reserve end
  return pool_used() + weight + kept <= max(0, m.capacity - m.share)
end

local function fill()
  local gained = floor((m.clock - m.tokens_at) * m.milli / 1000)
  if gained > 0 or m.milli == 0 then
    m.tokens = min(m.tokens + gained, m.share * MICRO)
    m.tokens_at = m.clock
  end
end

local function burst_room(account)
  local burst = 0
  for _, one in ipairs(m.bursts) do
    if one[1] == account then burst = one[2] end
  end
  local one = balance(account)
  -- A pod that drains bears nothing more.
  if not one or one[1] == 0 then return 0 end
  return max(0, one[1] + burst - one[2] - one[3])
end

------------------------------------------------------------------ terms

local function is_none(value)
  return value == nil or value < 0
end

-- The stricter of each figure. A pod that only some list has their limits.
local function stricter(list)
  local all = { fair = 0, cap = -1, reserve = 0, share = 0, pods = {}, apis = {}, said = {} }
  for _, one in ipairs(list) do
    all.fair = max(all.fair, one.fair)
    if not is_none(one.cap) then all.cap = is_none(all.cap) and one.cap or min(all.cap, one.cap) end
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
      if is_none(limit) then limit = mine[2] elseif not is_none(mine[2]) then limit = min(limit, mine[2]) end
      all.apis[api[1]] = { max(mine[1], api[2]), limit, min(mine[3], api[4]) }
      all.said[api[1]] = (all.said[api[1]] or 0) + 1
    end
  end
  for api, one in pairs(all.apis) do
    if all.said[api] < #list then one[3] = 0 end
  end
  return all
end

local function configure_apis(all)
  local limited = {}
  for _, rule in pairs(m.apis) do rule[1], rule[2] = 0, 0 end
  for api, one in pairs(all.apis) do
    local rule = m.apis[api] or { 0, 0, 0 }
    rule[1], rule[2] = one[1], one[3]
    m.apis[api] = rule
    if not is_none(one[2]) then
      limited['a:' .. api] = true
      local mine = balance('a:' .. api) or make_balance('a:' .. api)
      mine[1] = one[2]
    end
  end
  for api, rule in pairs(m.apis) do
    if rule[1] == 0 and rule[2] == 0 and rule[3] == 0 then m.apis[api] = nil end
  end
  return limited
end

-- Without a limit there is nothing to count: nobody holds it any more.
local function forget_account(account)
  for _, id in ipairs(call('ZRANGE', G, 0, -1)) do
    local one = rec(id)
    if one then
      local mine = held_by(one.epoch)
      if mine.units[account] then mine.units[account], mine.changed = nil, true end
      for _, lent in ipairs(one.pending) do
        if lent[2] == account then lent[3] = 0 end
      end
      rec_changed(one)
    end
  end
  for _, one in ipairs(m.remains) do
    local mine = held_by(one[3])
    if mine.units[account] then mine.units[account], mine.changed = nil, true end
  end
end

local function sum_up()
  m.unfilled = 0
  for _, rule in pairs(m.apis) do m.unfilled = m.unfilled + max(0, rule[1] - rule[3]) end
  m.over = {}
  call('DEL', O)
  call('ZADD', O, -1, '#' .. m.inc)
  for account in pairs(accounts) do
    local one = bals[account]
    if one[2] + one[3] > one[1] then m.over[account] = 1 end
    if is_pod(account) and open_of(one) > 0 then call('ZADD', O, open_of(one), account) end
  end
end

local function configure(all)
  m.fair = all.fair
  local declared = 0
  for _, pod in pairs(all.pods) do declared = declared + pod[1] end
  m.capacity = is_none(all.cap) and declared or min(declared, all.cap)
  m.reserve = all.reserve
  fill()
  m.share, m.milli = all.share, all.rate
  m.tokens = min(m.tokens, m.share * MICRO)
  for account in pairs(all_accounts()) do
    local one = balance(account)
    one[1], one[4] = 0, true
  end
  m.bursts, m.tall = {}, {}
  for _, name in ipairs(sorted(all.pods)) do
    local account, pod = 'p:' .. name, all.pods[name]
    local one = balance(account) or make_balance(account)
    one[1], one[4] = pod[1], true
    if pod[2] > 0 then m.bursts[#m.bursts + 1] = { account, pod[2] } end
    if #m.tall == 0 or pod[1] > m.tall[#m.tall][1] then m.tall[#m.tall + 1] = { pod[1], account } end
  end
  if all.share > 0 then
    local one = balance('t') or make_balance('t')
    one[1], one[4] = all.most, true
  end
  local limited = configure_apis(all)
  for _, account in ipairs(sorted(accounts)) do
    local one = bals[account]
    local gone = string.byte(account) == 97 and not limited[account]
    if gone or (one[1] == 0 and one[2] == 0 and one[3] == 0) then
      if gone then forget_account(account) end
      bals[account] = false
      accounts[account] = nil
      accounts_changed = true
      del('b:' .. account)
    else
      one[4] = true
    end
  end
  sum_up()
end

local function merge_terms()
  local list = {}
  for _, one in ipairs(sorted(m.digests)) do list[#list + 1] = cjson.decode(get('t:' .. one)) end
  if #list > 0 then configure(stricter(list)) end
end

-- One gate fewer obeys these. True if nobody does any more.
local function forget_terms(one)
  local gates = m.digests[one]
  if not gates then return false end
  if gates > 1 then
    m.digests[one] = gates - 1
    return false
  end
  m.digests[one] = nil
  m.kinds = m.kinds - 1
  del('t:' .. one)
  return true
end

local function hear_terms(mine)
  local before = mine.digest
  if digest == before then return end
  if not m.digests[digest] then
    if terms == '' then return end
    put('t:' .. digest, terms)
    m.kinds = m.kinds + 1
  end
  local is_new = not m.digests[digest]
  m.digests[digest] = (m.digests[digest] or 0) + 1
  mine.digest = digest
  local unused = forget_terms(before)
  if unused or is_new then merge_terms() end
end

------------------------------------------------------------------ lives

local function begin(fresh)
  fresh.inc, fresh.server = nonce == '0' and '1' or nonce, server
  fresh.digests, fresh.kinds, fresh.fair = {}, 0, fresh.fair or 0
  fresh.scarce, fresh.sapis, fresh.claim, fresh.remains = 0, {}, {}, {}
  fresh.capacity, fresh.reserve, fresh.share, fresh.milli = 0, 0, 0, 0
  fresh.tokens, fresh.tokens_at = 0, fresh.clock
  fresh.pooled, fresh.outside, fresh.unfilled = 0, 0, 0
  fresh.bursts, fresh.tall, fresh.outs, fresh.apis, fresh.over = {}, {}, {}, {}, {}
  fresh.done, fresh.queued = 0, 0
  fresh.from, fresh.until_ = fresh.clock, fresh.clock + 1
  call('DEL', S, O, L, G, I)
  recs, holds, bals, puts, dels, accounts = {}, {}, {}, {}, {}, {}
  accounts_changed = true
  local mark = '#' .. fresh.inc
  call('ZADD', O, -1, mark)
  call('ZADD', L, '+inf', mark)
  call('ZADD', G, '+inf', mark)
  call('ZADD', I, -1, mark)
end

-- A missing key, another server or a state that ran back: a new life of the state begins.
local function notice_loss(whole)
  local lost = not whole or m.server ~= server or (said_inc == m.inc and said_step > m.step)
  if lost then begin(m) end
  if m.clock < m.until_ then
    local past = past_us
    -- It knows of no life before, or has not heard of the loss yet.
    if said_inc == '0' then past = 0 elseif said_inc ~= m.inc then past = hold_us end
    m.until_ = max(m.until_, m.from + m.ttl + floor(m.ttl / 5) + past)
  end
end

local function drop_waiters(id)
  local blob = get('w:' .. id)
  if not blob then return end
  local members = unpack_(blob)
  if #members > 0 then call('ZREM', L, unpack(members)) end
  del('w:' .. id)
end

local function end_epoch(id)
  local one = rec(id)
  if not one then return end
  drop_waiters(id)
  m.queued = m.queued - one.queued
  local mine = held_by(one.epoch)
  for _, lent in ipairs(one.pending) do
    if lent[3] > 0 then mine.units[lent[2]], mine.changed = (mine.units[lent[2]] or 0) + lent[3], true end
  end
  local used = false
  for _, units in pairs(one.used) do used = used or units > 0 end
  if next(mine.units) or used then
    m.remains[#m.remains + 1] = { one.last + m.ttl + one.hold, id, one.epoch }
    put(fmt('u:%d', one.epoch), pack(one.used))
  else
    holds[one.epoch] = nil
    del(fmt('h:%d', one.epoch))
  end
  recs[id] = false
  del('g:' .. id)
  call('ZREM', G, id)
  call('ZREM', I, id)
  if forget_terms(one.digest) then merge_terms() end
end

-- Gives back of what a silent gate held, `left` accounts at most. True when nothing is left of it.
local function release(one, left)
  local mine = held_by(one[3])
  for _, account in ipairs(sorted(mine.units)) do
    if left[1] == 0 then return false end
    left[1] = left[1] - 1
    touched = touched + 1
    local units = mine.units[account]
    mine.units[account], mine.changed = nil, true
    change(account, units, 0)
  end
  if left[1] == 0 then return false end
  for api, units in pairs(unpack_(get(fmt('u:%d', one[3])))) do use_changed(api, units, 0) end
  holds[one[3]] = nil
  del(fmt('h:%d', one[3]))
  del(fmt('u:%d', one[3]))
  return true
end

local function by_gate(a, b)
  if a[2] ~= b[2] then return a[2] < b[2] end
  return a[3] < b[3]
end

local function release_where(chosen, left)
  table.sort(m.remains, by_gate)
  local rest = {}
  for _, one in ipairs(m.remains) do
    if not (chosen(one) and release(one, left)) then rest[#rest + 1] = one end
  end
  m.remains = rest
end

local function reap()
  for pod, till in pairs(m.outs) do
    if m.clock >= till then set_outside(pod, 0) end
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', G, '-inf', m.clock - m.ttl, 'LIMIT', 0, REAP_MAX)) do end_epoch(id) end
  if #m.remains > 0 then
    release_where(function(one) return m.clock >= one[1] end, { RELEASE_MAX })
  end
end

local function begin_epoch()
  m.epochs = m.epochs + 1
  recs[gate] = {
    epoch = m.epochs, number = number, syncing = 1, last = m.clock, hold = hold_us, pending = {}, lent = 0,
    used = {}, idle = 0, recalls = 0, recall = {}, digest = '0', version = 0, done = 0, queued = 0, unspent = 0,
    avoid = {}, label = label,
  }
  call('ZADD', G, m.clock, gate)
end

-- A gate that this state does not know, or not in this life.
local function welcome(mine)
  if not mine then
    begin_epoch()
  elseif number > mine.number and mine.syncing ~= 1 then
    end_epoch(gate)
    begin_epoch()
  end
  mine = recs[gate]
  mine.number = max(mine.number, number)
  if mine.syncing == 1 then mine.last, mine.hold = m.clock, hold_us end
  rec_changed(mine)
  return 'r'
end

------------------------------------------------------------------ hearing a report

local at = 27

local function hear_holds(mine)
  local kept = held_by(mine.epoch)
  local pending = mine.pending
  local first = 1
  while pending[first] and pending[first][1] <= applied do
    local lent = pending[first]
    if lent[3] > 0 then kept.units[lent[2]], kept.changed = (kept.units[lent[2]] or 0) + lent[3], true end
    first = first + 1
  end
  if first > 1 then
    local rest = {}
    for i = first, #pending do rest[#rest + 1] = pending[i] end
    mine.pending = rest
  end
  for _ = 1, num(A[at]) do
    local account, units = A[at + 1], num(A[at + 2])
    at = at + 2
    if string.byte(account) ~= 97 or balance(account) then
      local old = kept.units[account] or 0
      if old ~= units then
        kept.units[account], kept.changed = units > 0 and units or nil, true
        touched = touched + 1
        change(account, old, units)
      end
    end
  end
  at = at + 1
end

local function hear_used(mine)
  for _ = 1, num(A[at]) do
    local api, units = A[at + 1], num(A[at + 2])
    at = at + 2
    use_changed(api, mine.used[api] or 0, units)
    mine.used[api] = units
  end
  at = at + 1
end

local function hear_waiters(mine)
  drop_waiters(gate)
  local count = num(A[at])
  if count > 0 then
    local base = m.fair == 1 and 0 or m.clock
    local members, scored = {}, {}
    for i = 1, count do
      local ticket, api, weight, pin, age = A[at + 1], A[at + 2], A[at + 3], A[at + 4], num(A[at + 5])
      at = at + 5
      -- Padded, so that the order of equals is that of the numbers.
      local member = table.concat({ gate, fmt('%20s', ticket), weight, api, pin }, US)
      members[i] = member
      scored[2 * i - 1], scored[2 * i] = base - age, member
    end
    call('ZADD', L, unpack(scored))
    put('w:' .. gate, pack(members))
  end
  at = at + 1
end

local function hear_rates(mine)
  m.done = m.done + max(0, said_done - mine.done)
  m.queued = m.queued + said_queued - mine.queued
  m.vtime = max(m.vtime, said_vtime)
  local unspent = max(0, said_unspent - mine.unspent)
  if unspent > 0 then m.tokens = min(m.tokens + unspent * MICRO, m.share * MICRO) end
  mine.done, mine.queued, mine.unspent, mine.version = said_done, said_queued, said_unspent, said_version
  mine.label, mine.in_use, mine.waiting = label, num(A[24]), num(A[25])
end

local function hear_pods(mine)
  local avoid = {}
  for i = 1, num(A[at]) do
    avoid[i] = 'p:' .. A[at + 1]
    at = at + 1
  end
  at = at + 1
  mine.avoid = avoid
  for _ = 1, num(A[at]) do
    local account, in_use = 'p:' .. A[at + 1], num(A[at + 2])
    at = at + 2
    local one = balance(account)
    if one then
      local units = min(max(0, in_use - one[2]), one[1])
      set_outside(account, units)
      if units > 0 then m.outs[account] = m.clock + OUTSIDE_US end
    end
  end
end

local function end_sync(mine)
  mine.syncing = 0
  release_where(function(one) return one[2] == gate end, { 1000000000 })
end

local function credit_pending(mine)
  local units = 0
  for _, lent in ipairs(mine.pending) do
    if lent[4] == '' and is_pod(lent[2]) then units = units + lent[3] end
  end
  return units
end

-- What the report says is written down. Answers the verdict: a(pplied), s(tale) or r(esync).
local function hear()
  local mine = rec(gate)
  if not mine or said_inc ~= m.inc or said_epoch ~= mine.epoch then return welcome(mine) end
  if number <= mine.number then return 's' end
  rec_changed(mine)
  mine.number, mine.last, mine.hold = number, m.clock, hold_us
  if mine.syncing == 1 and part == 'c' then return 'r' end
  hear_terms(mine)
  hear_holds(mine)
  hear_used(mine)
  local waiters_at = at
  at = waiters_at + 5 * num(A[waiters_at]) + 1
  hear_rates(mine)
  hear_pods(mine)
  if part == 'l' then end_sync(mine) end
  at = waiters_at
  hear_waiters(mine)
  mine.idle = said_idle + credit_pending(mine)
  if mine.recall[1] and mine.recall[1] <= recalled then mine.recall = {} end
  return 'a'
end

-- Who has credit that could be recalled.
local function note_idle()
  local mine = recs[gate]
  if mine.syncing == 1 or mine.idle == 0 then call('ZREM', I, gate) else call('ZADD', I, mine.idle, gate) end
end

------------------------------------------------------------------ serving

local function lend(id, account, units, waiter, flags)
  local one = rec(id)
  one.lent = one.lent + 1
  one.pending[#one.pending + 1] = { one.lent, account, units, waiter, flags }
  rec_changed(one)
  change(account, 0, units)
  touched = touched + 1
end

local listed = {}            -- pods of a gate's terms, by digest
local function is_listed(one, account)
  local pods = listed[one.digest]
  if not pods then
    pods = {}
    local text = get('t:' .. one.digest)
    if text then
      for _, pod in ipairs(cjson.decode(text).pods) do pods['p:' .. pod[1]] = true end
    end
    listed[one.digest] = pods
  end
  return pods[account]
end

-- A pod that this gate may not be lent: claimed by a better rank, unusable there, or not in its terms.
local function is_barred(id, account)
  if m.claim[4] == account then return true end
  local one = rec(id)
  for _, pod in ipairs(one.avoid) do
    if pod == account then return true end
  end
  return m.kinds > 1 and not is_listed(one, account)
end

-- The first pod of the index, in its order, that passes `test`.
local function first_open(command, from, to, test)
  local skip, size = 0, 1
  while true do
    local pods = call(command, O, from, to, 'LIMIT', skip, size)
    for _, account in ipairs(pods) do
      if test(account) then return account end
    end
    if #pods < size then return nil end
    skip, size = skip + size, 16
  end
end

local function narrowest(weight, test)
  return first_open('ZRANGEBYSCORE', max(1, weight), '+inf', test)
end

local function widest(test)
  return first_open('ZREVRANGEBYSCORE', '+inf', 1, test)
end

local function place(id, w)
  if w.pin ~= '' then
    local account = 'p:' .. w.pin
    return open(account) >= w.weight and not is_barred(id, account) and account or nil
  end
  return narrowest(w.weight, function(account) return not is_barred(id, account) end)
end

local function place_burst(id, w)
  if w.pin ~= '' then
    local account = 'p:' .. w.pin
    return burst_room(account) >= w.weight and not is_barred(id, account) and account or nil
  end
  local best, most
  for _, one in ipairs(m.bursts) do
    local account = one[1]
    local room = burst_room(account)
    if not is_barred(id, account) and (not most or room > most) then best, most = account, room end
  end
  return best and most >= w.weight and best or nil
end

local function trickle_bears(weight)
  local one = balance('t')
  return m.milli > 0 and weight <= min(m.share, one and one[1] or 0)
end

-- Conditions 1 and 3, or the trickle, and a better rank's claim. Answers the pod, and whether tokens were needed.
local function find(w, unmet)
  local hopeless = w.pin == '' and unmet.weight and w.weight >= unmet.weight
  if pool_has(w.api, w.weight) then
    return not hopeless and place(w.gate, w) or nil, false
  end
  if unmet.tokens_kept or not trickle_bears(w.weight) then return nil end
  local pod = not hopeless and place(w.gate, w) or place_burst(w.gate, w)
  if not pod then return nil end
  if m.tokens < w.weight * MICRO or open('t') < w.weight then
    unmet.tokens_kept = true
    return nil
  end
  return pod, true
end

local function claimable(w, before)
  local function able(account)
    local one = balance(account)
    return one and one[1] >= w.weight and not is_barred(w.gate, account)
  end
  local best = widest(able)
  local stays = before and able(before) and before or nil
  if best and stays then return open(best) > open(stays) and best or stays end
  if best or stays then return best or stays end
  for _, one in ipairs(m.tall) do
    if able(one[2]) then return one[2] end
  end
end

-- The best unmet waiter claims a pod.
local function stake(w, before)
  if m.claim[1] then return end
  local same = before[2] == w.gate and before[3] == w.ticket
  local pod
  if w.pin ~= '' then pod = 'p:' .. w.pin else pod = claimable(w, same and before[4] or nil) end
  if pod then m.claim = { w.rank, w.gate, w.ticket, pod } end
end

local function lend_to_waiter(w, pod, trickle)
  local special = trickle or ordinary() < w.weight
  local flags = (special and 1 or 0) + (trickle and 2 or 0)
  if balance('a:' .. w.api) then lend(w.gate, 'a:' .. w.api, w.weight, '', flags) end
  if trickle then
    m.tokens = m.tokens - w.weight * MICRO
    lend(w.gate, 't', w.weight, '', flags)
  end
  lend(w.gate, pod, w.weight, w.ticket, flags)
end

local function is_served(w)
  for _, lent in ipairs(rec(w.gate).pending) do
    if lent[4] == w.ticket then return true end
  end
  return false
end

local gates = 0              -- gates that live

local function unclaimed(account)
  return account ~= m.claim[4]
end

local function serve_one(w, unmet, before, told)
  if is_served(w) then return true end
  local limit = balance('a:' .. w.api)
  if limit and open_of(limit) < w.weight then
    unmet.apis[#unmet.apis + 1] = w
    return true
  end
  local pod, trickle = find(w, unmet)
  if pod then
    lend_to_waiter(w, pod, trickle)
    told[w.gate] = true
    return true
  end
  stake(w, before)
  if w.pin == '' and (not unmet.weight or w.weight < unmet.weight) and not narrowest(w.weight, unclaimed) then
    unmet.weight = w.weight
  end
  unmet.pods[#unmet.pods + 1] = w
  -- Nothing is open but what is claimed, and more are unmet than recalls may stand.
  return #unmet.pods < gates or m.share > 0 or widest(unclaimed)
end

local function serve_waiters(told)
  local before, unmet, from, chunk = m.claim, { pods = {}, apis = {} }, 0, 16
  m.claim = {}
  while from < LOOK_MAX do
    local line = call('ZRANGE', L, from, from + chunk - 1, 'WITHSCORES')
    for i = 1, #line, 2 do
      local id, ticket, weight, api, pin = string.match(line[i], '^(%x+)\31 *(%d+)\31(%d+)\31([^\31]*)\31(.*)$')
      if not id then return unmet end
      local w = { rank = num(line[i + 1]), gate = id, ticket = ticket, weight = num(weight), api = api, pin = pin }
      if not serve_one(w, unmet, before, told) then return unmet end
    end
    if #line < 2 * chunk then return unmet end
    from = from + chunk
  end
  return unmet
end

local function recall_from(id, units, api, told)
  local one = rec(id)
  one.recalls = one.recalls + 1
  one.recall = { one.recalls, units, api }
  if api == '' then
    one.idle = max(0, one.idle - units)
    call('ZADD', I, one.idle, id)
  end
  rec_changed(one)
  told[id] = true
end

-- The gate with most idle credit, of those from which nothing is recalled yet.
local function richest(but)
  local skip = 0
  while true do
    local ids = call('ZREVRANGEBYSCORE', I, '+inf', 1, 'LIMIT', skip, 4)
    for _, id in ipairs(ids) do
      if id ~= but and not rec(id).recall[1] then return id end
    end
    if #ids < 4 then return nil end
    skip = skip + 4
  end
end

local function spare(one, api)
  return max(0, (held_by(one.epoch).units['a:' .. api] or 0) - (one.used[api] or 0))
end

local function recall(unmet, told)
  for i = 1, min(#unmet.pods, gates) do
    local w = unmet.pods[i]
    local id = richest(w.gate)
    if id then recall_from(id, w.weight, '', told) end
  end
  for i = 1, min(#unmet.apis, gates) do
    local w = unmet.apis[i]
    local best, most
    for _, id in ipairs(call('ZRANGE', G, 0, -1)) do
      local one = id ~= w.gate and rec(id)
      if one and not one.recall[1] and one.syncing ~= 1 then
        local units = spare(one, w.api)
        if units > 0 and (not most or units > most or (units == most and id > best)) then best, most = id, units end
      end
    end
    if best then recall_from(best, w.weight, w.api, told) end
  end
end

local function target()
  if m.scarce == 1 then return 0 end
  return floor(ordinary() / (gates + 1))
end

-- Whole pods where possible: scattered single units fit no heavy ask.
local function give_credit(mine)
  local aim = target()
  if mine.syncing == 1 or mine.idle >= aim then return end
  local want = min(aim - mine.idle, ordinary())
  local barred, given = 0, 0
  while want > 0 and given < CREDIT_PODS_MAX do
    local pods = call('ZREVRANGEBYSCORE', O, '+inf', 1, 'WITHSCORES', 'LIMIT', barred, 16)
    if #pods == 0 then return end
    for i = 1, #pods, 2 do
      local account = pods[i]
      if is_barred(gate, account) then
        barred = barred + 1
      elseif want > 0 and given < CREDIT_PODS_MAX then
        local units = min(num(pods[i + 1]), want)
        lend(gate, account, units, '', 0)
        mine.idle = mine.idle + units
        want, given = want - units, given + 1
      end
    end
  end
end

local function give_allowances(mine)
  if mine.syncing == 1 then return end
  for _, lent in ipairs(mine.pending) do
    if string.byte(lent[2]) == 97 then return end
  end
  local scarce = {}
  for _, api in ipairs(m.sapis) do scarce[api] = true end
  for _, api in ipairs(sorted(mine.used)) do
    if not scarce[api] and balance('a:' .. api) then
      local aim = floor(open('a:' .. api) / (gates + 1))
      local has = spare(mine, api)
      if has < floor(aim / 4) then lend(gate, 'a:' .. api, aim - has, '', 0) end
    end
  end
end

local function said_claim()
  if not m.claim[1] then return '', 0 end
  return string.sub(m.claim[4], 3), (m.fair == 1 and 0 or m.clock) - m.claim[1]
end

local function append_lent(words, one)
  words[#words + 1] = #one.pending
  for _, lent in ipairs(one.pending) do
    for i = 1, 5 do words[#words + 1] = lent[i] end
  end
end

local function push(told)
  for _, id in ipairs(sorted(told)) do
    local one = rec(id)
    local kept, age = said_claim()
    local words = {
      m.inc, one.epoch, one.recall[1] or 0, one.recall[2] or 0, one.recall[3] or '', kept, fmt('%.0f', age),
    }
    append_lent(words, one)
    call('PUBLISH', A[1] .. id, table.concat(words, '\n'))
    pushes = pushes + 1
  end
end

local function serve()
  local told = {}
  fill()
  local unmet = serve_waiters(told)
  m.scarce = #unmet.pods > 0 and 1 or 0
  local apis = {}
  for _, w in ipairs(unmet.apis) do apis[w.api] = true end
  m.sapis = sorted(apis)
  recall(unmet, told)
  local mine = rec(gate)
  if mine then
    give_credit(mine)
    give_allowances(mine)
  end
  told[gate] = nil
  push(told)
end

------------------------------------------------------------------ the answer

local function answer(verdict)
  local mine = rec(gate)
  local recovering = m.clock < m.until_
  local kept, age = said_claim()
  local recall_ = mine and mine.recall or {}
  local reply = {
    verdict, m.inc, mine and mine.epoch or 0, number, m.step, target(), m.scarce == 1 and not recovering and 1 or 0,
    recovering and 1 or 0, gates * GATE_PACE_US, num(call('HGET', D, 'v') or 0), gates, m.done, m.queued, m.vtime,
    now, pushes, touched, recall_[1] or 0, recall_[2] or 0, recall_[3] or '', kept, age,
  }
  append_lent(reply, mine and mine.syncing ~= 1 and mine or { pending = {} })
  reply[#reply + 1] = #m.sapis
  for _, api in ipairs(m.sapis) do reply[#reply + 1] = api end
  local over = {}
  if mine and next(m.over) then
    local units = held_by(mine.epoch).units
    for _, account in ipairs(sorted(m.over)) do
      if units[account] and #over < PART_MAX then over[#over + 1] = account end
    end
  end
  reply[#reply + 1] = #over
  for _, account in ipairs(over) do reply[#reply + 1] = account end
  return reply
end

local function write_down()
  for id, one in pairs(recs) do
    if one and one.changed then
      one.changed = nil
      put('g:' .. id, pack(one))
    end
  end
  for epoch, one in pairs(holds) do
    if one.changed then put(fmt('h:%d', epoch), pack(one.units)) end
  end
  for account, one in pairs(bals) do
    if one and one[4] then put('b:' .. account, fmt('%d %d %d', one[1], one[2], one[3])) end
  end
  if accounts_changed then put('B', pack(accounts)) end
  put('m', pack(m))
  local fields = {}
  for field, value in pairs(puts) do
    fields[#fields + 1], fields[#fields + 2] = field, value
  end
  for from = 1, #fields, 2000 do call('HSET', S, unpack(fields, from, min(from + 1999, #fields))) end
  local gone = {}
  for field in pairs(dels) do gone[#gone + 1] = field end
  for from = 1, #gone, 2000 do call('HDEL', S, unpack(gone, from, min(from + 1999, #gone))) end
  local mine = recs[gate]
  if mine then
    call('ZADD', G, mine.last, gate)
    note_idle()
  end
end

------------------------------------------------------------------ the exchange

local blob = call('HGET', S, 'm')
m = blob and unpack_(blob) or { ttl = 0, clock = 0, step = 0, epochs = 0, vtime = 0 }
local mark = '#' .. (m.inc or '')
local whole = blob and call('ZSCORE', O, mark) and call('ZSCORE', L, mark) and call('ZSCORE', G, mark)
  and call('ZSCORE', I, mark)

m.ttl = max(m.ttl, said_ttl)
m.clock = m.clock + min(m.seen and max(0, now - m.seen) or 0, floor(m.ttl / 5))
m.seen = now
notice_loss(whole)
m.step = m.step + 1
reap()
local verdict = hear()
if verdict == 'a' then
  if leaving then end_epoch(gate) else note_idle() end
end
gates = call('ZCARD', G) - 1
if verdict == 'a' and m.clock >= m.until_ then serve() end
local reply = answer(verdict)
write_down()
return reply
