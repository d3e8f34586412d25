-- Part of exchange.lua: what is read once and written once.

-- m in bytes: its numbers, then its words. A claim is its rank, gate, ticket and pod; pod '': there is none.
local HOT = 'dddddddddddddddddddddddddddddddsssss'
-- m in cmsgpack, read when first needed: counts of gates by digest of terms; apis whose `max` somebody waits for; what
-- silent gates left; bursts; the tallest pods; ends of pods' words; rules and use of apis; accounts above their limit.
local COLD = { digests = 1, sapis = 1, remains = 1, bursts = 1, tall = 1, outs = 1, apis = 1, over = 1 }
-- A gate's record in bytes: its numbers, its words without its label, the length of that, the label, and then its lists
-- in cmsgpack if one has entries.
local RECORD = 'dddddddddddddddddssI2c0'

-- So many doubles.
local DOUBLES = {
  [3] = 'ddd', [5] = 'ddddd', [7] = 'ddddddd', [9] = 'ddddddddd', [11] = 'ddddddddddd', [13] = 'ddddddddddddd',
}

-- Before a part of the cold figures is set anew; to read one is enough to have them.
function F.read_cold()
  if X.cold_read then return end
  local cold = unpack_(X.cold)
  for part in pairs(COLD) do m[part] = cold[part] end
  X.cold_read = true
end

local LAZY = {}

function LAZY.__index(of, name)
  if not COLD[name] then return nil end
  F.read_cold()
  return rawget(of, name)
end

function F.read_m(blob, cold)
  m = { claim = {} }
  local claim = m.claim
  local rank, gate, ticket, pod
  m.clock, m.seen, m.step, m.ttl, m.epochs, m.vtime, m.fair, m.kinds, m.scarce, m.capacity, m.reserve, m.share, m.milli,
    m.tokens, m.tokens_at, m.pooled, m.outside, m.unfilled, m.done, m.queued, m.from, m.until_, m.reap_at, m.limited,
    m.some_over, m.some_outs, m.some_remains, m.some_apis, m.some_sapis, m.tight, rank, m.inc, m.server, gate, ticket, pod =
    of_bytes(HOT, blob)
  if pod ~= '' then claim[1], claim[2], claim[3], claim[4] = rank, gate, ticket, pod end
  X.cold = cold
  setmetatable(m, LAZY)
end

function F.write_m()
  if X.cold_read then
    m.some_over, m.some_outs = next(m.over) and 1 or 0, next(m.outs) and 1 or 0
    m.some_remains, m.some_apis = #m.remains > 0 and 1 or 0, next(m.apis) and 1 or 0
    m.some_sapis = m.sapis[1] and 1 or 0
    if X.cold_changed then
      local cold = {}
      for key in pairs(COLD) do cold[key] = m[key] end
      F.put('c', pack(cold))
    end
  end
  local claim = m.claim
  F.put('m', to_bytes(HOT, m.clock, m.seen, m.step, m.ttl, m.epochs, m.vtime, m.fair, m.kinds, m.scarce, m.capacity,
    m.reserve, m.share, m.milli, m.tokens, m.tokens_at, m.pooled, m.outside, m.unfilled, m.done, m.queued, m.from,
    m.until_, m.reap_at, m.limited, m.some_over, m.some_outs, m.some_remains, m.some_apis, m.some_sapis, m.tight,
    claim[1] or 0, m.inc, m.server, claim[2] or '', claim[3] or '', claim[4] or ''))
end

-- Whether a part of the cold figures has entries, without reading it if it has none.
function F.some(name, known)
  if X.cold_read then return next(m[name]) ~= nil end
  return known == 1
end

function F.put(field, value)
  X.puts[field] = value
  X.dels[field] = nil
end

function F.del(field)
  X.puts[field] = nil
  X.dels[field] = true
end

function F.get(field)
  if X.puts[field] then return X.puts[field] end
  if X.dels[field] then return false end
  local value = X.fetched[field]
  if value == nil then value = call('HGET', X.S, field) end
  return value
end

-- All that an exchange surely needs, by one command.
function F.fetch()
  local A, at, fields = X.A, X.at, { 'm', 'c', 'g:' .. X.gate, 'w:' .. X.gate, 'b:t' }
  local count = min(num(A[at]), MANY)
  for i = 1, count do fields[5 + i] = 'b:' .. A[at - 1 + 2 * i] end
  local values, bals = call('HMGET', X.S, unpack(fields)), X.bals
  X.fetched = { [fields[3]] = values[3], [fields[4]] = values[4] }
  bals.t = F.read_balance(values[5], 'b:t')
  for i = 1, count do bals[A[at - 1 + 2 * i]] = F.read_balance(values[5 + i], fields[5 + i]) end
  return values[1], values[2]
end

function F.read_record(blob)
  local one = { recall = {}, pending = {}, used = {}, avoid = {} }
  local recall = one.recall
  local number, units, api, at
  one.epoch, one.number, one.syncing, one.last, one.hold, one.lent, one.idle, one.recalls, one.version, one.done, one.queued,
    one.unspent, one.in_use, one.waiting, number, units, one.warned, one.digest, api, one.label, at = of_bytes(RECORD, blob)
  if number > 0 then recall[1], recall[2], recall[3] = number, units, api end
  if at <= #blob then one.pending, one.used, one.avoid = unpack(unpack_(string.sub(blob, at))) end
  return one
end

function F.write_record(one)
  local recall, lists = one.recall, ''
  if one.pending[1] or one.avoid[1] or next(one.used) then lists = pack({ one.pending, one.used, one.avoid }) end
  return to_bytes(RECORD, one.epoch, one.number, one.syncing, one.last, one.hold, one.lent, one.idle, one.recalls,
    one.version, one.done, one.queued, one.unspent, one.in_use, one.waiting, recall[1] or 0, recall[2] or 0, one.warned, one.digest,
    recall[3] or '', #one.label, one.label) .. lists
end

-- A gate's record, or false.
function F.rec(id)
  local one = X.recs[id]
  if one == nil then
    local field = 'g:' .. id
    local blob = X.fetched[field]
    if blob == nil then blob = call('HGET', X.S, field) end
    one = blob and F.read_record(blob) or false
    X.recs[id] = one
  end
  return one
end

function F.rec_changed(one)
  one.changed = true
end

-- Ids of all gates that live; their records are there afterwards.
function F.everybody()
  local ids, missing = {}, {}
  for _, id in ipairs(call('ZRANGE', X.G, 0, -2)) do
    if X.recs[id] == nil then missing[#missing + 1] = 'g:' .. id end
    ids[#ids + 1] = id
  end
  if #missing > 0 then
    local values = call('HMGET', X.S, unpack(missing))
    for i, field in ipairs(missing) do X.fetched[field] = values[i] end
  end
  return ids
end

-- { limit, held, outside, epoch and units of each that holds any } of an account, or false.
function F.read_balance(text, field)
  if not text then return false end
  local count = #text / 8
  local one = { of_bytes(DOUBLES[count] or rep('d', count), text) }
  one[count + 1] = nil         -- where it ended
  one.field = field
  return one
end

function F.balance(account)
  local one = X.bals[account]
  if one == nil then
    one = false
    if m.limited > 0 or byte(account) ~= 97 then
      local field = 'b:' .. account
      one = F.read_balance(F.get(field), field)
    end
    X.bals[account] = one
  end
  return one
end

-- Units of an account that an epoch holds, and their place in its balance.
function F.holding(one, epoch)
  for i = 4, #one, 2 do
    if one[i] == epoch then return one[i + 1], i end
  end
  return 0, nil
end

function F.set_holding(one, epoch, at, units)
  if units > 0 then
    at = at or #one + 1
    one[at], one[at + 1] = epoch, units
  elseif at then
    local last = #one
    one[at], one[at + 1] = one[last - 1], one[last]
    one[last], one[last - 1] = nil, nil
  end
end

function F.all_accounts()
  if not X.accounts then
    local blob = F.get('B')
    X.accounts = blob and unpack_(blob) or {}
  end
  return X.accounts
end

-- The balances of all accounts are there afterwards.
function F.all_balances()
  local missing = {}
  for account in pairs(F.all_accounts()) do
    if X.bals[account] == nil and X.fetched['b:' .. account] == nil then missing[#missing + 1] = 'b:' .. account end
  end
  for from = 1, #missing, MANY do
    local till = min(from + MANY - 1, #missing)
    local values = call('HMGET', X.S, unpack(missing, from, till))
    for i = from, till do X.fetched[missing[i]] = values[i - from + 1] end
  end
  return X.accounts
end

function F.make_balance(account)
  local one = { 0, 0, 0 }
  X.bals[account] = one
  F.all_accounts()[account] = 1
  X.accounts_changed = true
  return one
end

function F.sorted(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  sort(keys)
  return keys
end
