-- Part of exchange.lua: the answer.

function F.answer(verdict)
  local mine = F.rec(X.gate)
  local recovering = m.clock < m.until_
  local kept, age = F.said_claim()
  local recall_ = mine and mine.recall or {}
  local reply = {
    verdict, m.inc, mine and mine.epoch or 0, X.number, m.step, F.target(), m.scarce == 1 and not recovering and 1 or 0,
    recovering and 1 or 0, X.gates * X.GATE_PACE_US, num(call('HGET', X.D, 'v') or 0), X.gates, m.done, m.queued, m.vtime,
    X.now, X.pushes, X.touched, recall_[1] or 0, recall_[2] or 0, recall_[3] or '', kept, age,
  }
  F.append_lent(reply, mine and mine.syncing ~= 1 and mine or { pending = {} })
  F.append(reply, m.sapis)
  local over = {}
  if mine and next(m.over) then
    local units = F.held_by(mine.epoch).units
    for _, account in ipairs(F.sorted(m.over)) do
      if units[account] and #over < X.PART_MAX then over[#over + 1] = account end
    end
  end
  F.append(reply, over)
  return reply
end

function F.write_down()
  for id, one in pairs(X.recs) do
    if one and one.changed then
      one.changed = nil
      F.put('g:' .. id, pack(one))
    end
  end
  for epoch, one in pairs(X.holds) do
    if one.changed then F.put(fmt('h:%d', epoch), pack(one.units)) end
  end
  for account, one in pairs(X.bals) do
    if one and one[4] then F.put('b:' .. account, fmt('%d %d %d', one[1], one[2], one[3])) end
  end
  if X.accounts_changed then F.put('B', pack(X.accounts)) end
  F.put('m', pack(m))
  local fields = {}
  for field, value in pairs(X.puts) do
    fields[#fields + 1], fields[#fields + 2] = field, value
  end
  for from = 1, #fields, 2000 do call('HSET', X.S, unpack(fields, from, min(from + 1999, #fields))) end
  local gone = {}
  for field in pairs(X.dels) do gone[#gone + 1] = field end
  for from = 1, #gone, 2000 do call('HDEL', X.S, unpack(gone, from, min(from + 1999, #gone))) end
  local mine = X.recs[X.gate]
  if mine then
    call('ZADD', X.G, mine.last, X.gate)
    F.note_idle()
  end
end


-- The exchange.

local blob = call('HGET', X.S, 'm')
m = blob and unpack_(blob) or { ttl = 0, clock = 0, step = 0, epochs = 0, vtime = 0 }
local mark = '#' .. (m.inc or '')
local whole = blob and call('ZSCORE', X.O, mark) and call('ZSCORE', X.L, mark) and call('ZSCORE', X.G, mark)
  and call('ZSCORE', X.I, mark)

m.ttl = max(m.ttl, X.said_ttl)
m.clock = m.clock + min(m.seen and max(0, X.now - m.seen) or 0, floor(m.ttl / 5))
m.seen = X.now
F.notice_loss(whole)
m.step = m.step + 1
F.reap()
local verdict = F.hear()
if verdict == 'a' then
  if X.leaving then F.end_epoch(X.gate) else F.note_idle() end
end
X.gates = call('ZCARD', X.G) - 1
if verdict == 'a' and m.clock >= m.until_ then F.serve() end
local reply = F.answer(verdict)
F.write_down()
return reply
