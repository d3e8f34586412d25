-- Writes the ledger's whole state down, line by line, as `Keeper::describe` does. For the differential test only.
-- The packed forms are those of scripts/exchange/state.lua.
local S, O, L, G = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local call, unpack_ = redis.call, cmsgpack.unpack
local lines = {}
local function line(format, ...) lines[#lines + 1] = string.format(format, ...) end
local function doubles(text) return { struct.unpack(string.rep('d', #text / 8), text) } end

local m, claim = unpack_(call('HGET', S, 'c')), {}
m.clock, m.seen, m.step, m.ttl, m.epochs, m.vtime, m.fair, m.kinds, m.scarce, m.capacity, m.reserve, m.share, m.milli,
  m.tokens, m.tokens_at, m.pooled, m.outside, m.unfilled, m.done, m.queued, m.from, m.until_, m.reap_at, m.limited,
  m.some_over, m.some_outs, m.some_remains, m.some_apis, m.some_sapis, m.tight, claim[1], m.inc, m.server, claim[2],
  claim[3], claim[4] =
  struct.unpack('dddddddddddddddddddddddddddddddsssss', call('HGET', S, 'm'))

-- Units by epoch and account, and whom each epoch is of.
local held, pending, over, limited = {}, {}, {}, 0
for account in pairs(unpack_(call('HGET', S, 'B'))) do
  local one = doubles(call('HGET', S, 'b:' .. account))
  line('balance %s %d %d %d', account, one[1], one[2], one[3])
  for i = 4, #one - 1, 2 do
    held[one[i]] = held[one[i]] or {}
    assert(not held[one[i]][account] and one[i + 1] > 0, 'an epoch has one entry, of some units')
    held[one[i]][account] = one[i + 1]
  end
  if one[2] + one[3] > one[1] then over[account] = true end
  if string.byte(account) == 97 then limited = limited + 1 end
end
for account in pairs(over) do assert(m.over[account], account .. ' is over its limit') end
for account in pairs(m.over) do assert(over[account], account .. ' is not over its limit') end
assert(m.limited == limited, 'limited accounts')
assert((next(m.over) and 1 or 0) == m.some_over and (next(m.outs) and 1 or 0) == m.some_outs, 'some are over, or outside')
assert((m.sapis[1] and 1 or 0) == m.some_sapis, 'some apis are scarce')
assert((#m.remains > 0 and 1 or 0) == m.some_remains and (next(m.apis) and 1 or 0) == m.some_apis, 'some remain, or apis')

local open = call('ZRANGE', O, 0, -1, 'WITHSCORES')
for i = 3, #open, 2 do line('open %s %s', open[i + 1], open[i]) end
for api, rule in pairs(m.apis) do line('api a:%s %d %d %d', api, rule[1], rule[2], rule[3]) end
line('pool %d %d %d %d', m.capacity, m.reserve, m.share, m.milli)
line('sums %d %d %d %.0f', m.pooled, m.outside, m.unfilled, m.tokens)
line('life %s %d %d %d %d', m.inc, m.step, m.epochs, m.fair, m.tight)
line('clock %.0f %.0f %.0f %d', m.clock, m.from, m.until_, m.ttl)
line('rates %.0f %.0f %.0f', m.done, m.queued, m.vtime)
for digest, gates in pairs(m.digests) do line('terms %s %d', digest, gates) end

local function units(epoch, used)
  for account, count in pairs(held[epoch] or {}) do
    local own = count - (pending[account] or 0)
    assert(own >= 0, 'more is on its way than is held')
    if own > 0 then line('holds %d %s %d', epoch, account, own) end
  end
  for api, count in pairs(used) do line('uses %d a:%s %d', epoch, api, count) end
  held[epoch] = nil
end

for _, gate in ipairs(call('ZRANGE', G, 0, -1)) do
  local blob = call('HGET', S, 'g:' .. gate)
  if blob then
    local r, recall, at, label, api = {}, 0, 0, '', ''
    r.epoch, r.number, r.syncing, r.last, r.hold, r.lent, r.idle, r.recalls, r.version, r.done, r.queued, r.unspent, r.in_use,
      r.waiting, recall, r.units, r.warned, r.digest, api, label, at = struct.unpack('dddddddddddddddddssI2c0', blob)
    local lists = at <= #blob and unpack_(string.sub(blob, at)) or { {}, {}, {} }
    assert(r.last + m.ttl >= m.reap_at, 'a gate falls silent before anybody looks')
    line('gate %s %d %d %d %.0f %d %d %d %d %d %d %s', gate, r.epoch, r.number, r.syncing, r.last, r.hold, r.lent, r.idle,
      r.recalls, recall, r.warned, r.digest)
    pending = {}
    for _, one in ipairs(lists[1]) do
      pending[one[2]] = (pending[one[2]] or 0) + one[3]
      line('lent %d %d %s %d %s %d', r.epoch, one[1], one[2], one[3], one[4], one[5])
    end
    units(r.epoch, lists[2])
  end
end
pending = {}
for _, one in ipairs(m.remains) do
  line('remains %s %d %.0f', one[2], one[3], one[1])
  units(one[3], unpack_(call('HGET', S, string.format('u:%d', one[3]))))
end
assert(next(held) == nil, 'somebody holds who is not known')
local line_ = call('ZRANGE', L, 0, -1, 'WITHSCORES')
for i = 1, #line_, 2 do
  local gate, ticket, weight, api, pin = string.match(line_[i], '^(%x+)\31 *(%d+)\31(%d+)\31([^\31]*)\31(.*)$')
  if gate then
    if pin ~= '' then pin = 'p:' .. pin end
    line('waits %.0f %s %s %s a:%s %s', tonumber(line_[i + 1]), gate, ticket, weight, api, pin)
  end
end
if claim[4] ~= '' then line('claim %.0f %s %s %s', claim[1], claim[2], claim[3], claim[4]) end
return lines
