-- Writes the ledger's whole state down, line by line, as `Keeper::describe` does. For the differential test only.
local S, O, L, G = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local call, unpack_ = redis.call, cmsgpack.unpack
local lines = {}
local function line(format, ...) lines[#lines + 1] = string.format(format, ...) end
local function sorted(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

local m = unpack_(call('HGET', S, 'm'))
for account in pairs(unpack_(call('HGET', S, 'B'))) do
  line('balance %s %s', account, call('HGET', S, 'b:' .. account))
end
local open = call('ZRANGE', O, 0, -1, 'WITHSCORES')
for i = 3, #open, 2 do line('open %s %s', open[i + 1], open[i]) end
for api, rule in pairs(m.apis) do line('api a:%s %d %d %d', api, rule[1], rule[2], rule[3]) end
line('pool %d %d %d %d', m.capacity, m.reserve, m.share, m.milli)
line('sums %d %d %d %.0f', m.pooled, m.outside, m.unfilled, m.tokens)
line('life %s %d %d %d', m.inc, m.step, m.epochs, m.fair)
line('clock %.0f %.0f %.0f %d', m.clock, m.from, m.until_, m.ttl)
line('rates %.0f %.0f %.0f', m.done, m.queued, m.vtime)
for digest, gates in pairs(m.digests) do line('terms %s %d', digest, gates) end

local function units(epoch, used)
  local held = call('HGET', S, string.format('h:%d', epoch))
  for account, count in pairs(held and unpack_(held) or {}) do line('holds %d %s %d', epoch, account, count) end
  for api, count in pairs(used) do line('uses %d a:%s %d', epoch, api, count) end
end

for _, gate in ipairs(call('ZRANGE', G, 0, -1)) do
  local blob = call('HGET', S, 'g:' .. gate)
  if blob then
    local r = unpack_(blob)
    line('gate %s %d %d %d %.0f %d %d %d %d %d %s', gate, r.epoch, r.number, r.syncing, r.last, r.hold, r.lent, r.idle,
      r.recalls, r.recall[1] or 0, r.digest)
    units(r.epoch, r.used)
    for _, one in ipairs(r.pending) do
      line('lent %d %d %s %d %s %d', r.epoch, one[1], one[2], one[3], one[4], one[5])
    end
  end
end
for _, one in ipairs(m.remains) do
  line('remains %s %d %.0f', one[2], one[3], one[1])
  units(one[3], unpack_(call('HGET', S, string.format('u:%d', one[3]))))
end
local line_ = call('ZRANGE', L, 0, -1, 'WITHSCORES')
for i = 1, #line_, 2 do
  local gate, ticket, weight, api, pin = string.match(line_[i], '^(%x+)\31 *(%d+)\31(%d+)\31([^\31]*)\31(.*)$')
  if gate then
    if pin ~= '' then pin = 'p:' .. pin end
    line('waits %.0f %s %s %s a:%s %s', tonumber(line_[i + 1]), gate, ticket, weight, api, pin)
  end
end
if m.claim[1] then line('claim %.0f %s %s %s', m.claim[1], m.claim[2], m.claim[3], m.claim[4]) end
return lines
