-- Part of exchange.lua: the answer.

function F.answer(verdict)
  local mine = F.rec(X.gate)
  local recovering = m.clock < m.until_
  local kept, age = F.said_claim()
  local recall_ = mine and mine.recall or {}
  local reply = {
    verdict, m.inc, mine and mine.epoch or 0, X.number, m.step, F.target(), m.scarce == 1 and not recovering and 1 or 0,
    recovering and 1 or 0, m.tight, X.gates * GATE_PACE_US, num(call('HGET', X.D, 'v') or 0), X.gates, m.done, m.queued, m.vtime,
    X.now, X.pushes, X.touched, recall_[1] or 0, recall_[2] or 0, recall_[3] or '', kept, age,
  }
  F.append_lent(reply, mine and mine.syncing ~= 1 and mine or { pending = {} })
  F.append(reply, F.some('sapis', m.some_sapis) and m.sapis or {})
  local over = {}
  if mine and F.some('over', m.some_over) then
    for _, account in ipairs(F.sorted(m.over)) do
      if #over < PART_MAX and F.holding(F.balance(account), mine.epoch) > 0 then over[#over + 1] = account end
    end
  end
  F.append(reply, over)
  return reply
end

function F.write_down()
  for id, one in pairs(X.recs) do
    if one and one.changed then F.put('g:' .. id, F.write_record(one)) end
  end
  if X.accounts_changed then F.put('B', pack(X.accounts)) end
  F.write_m()
  F.index()
  local fields, at = {}, 0
  for account, one in pairs(X.bals) do
    if one and one.changed then
      local field = one.field or 'b:' .. account
      fields[at + 1], fields[at + 2] = field, to_bytes(DOUBLES[#one] or rep('d', #one), unpack(one))
      at = at + 2
      X.dels[field] = nil
    end
  end
  for field, value in pairs(X.puts) do
    fields[at + 1], fields[at + 2] = field, value
    at = at + 2
  end
  for from = 1, #fields, MANY do call('HSET', X.S, unpack(fields, from, min(from + MANY - 1, #fields))) end
  local gone = {}
  for field in pairs(X.dels) do gone[#gone + 1] = field end
  for from = 1, #gone, MANY do call('HDEL', X.S, unpack(gone, from, min(from + MANY - 1, #gone))) end
  local mine = X.recs[X.gate]
  if mine then
    if mine.changed then call('ZADD', X.G, mine.last, X.gate) end
    F.note_idle()
  end
end

-- What this call knows. Nothing of the last one is left.
function F.start(KEYS, A)
  call, pack, unpack_, to_bytes, of_bytes = redis.call, cmsgpack.pack, cmsgpack.unpack, struct.pack, struct.unpack
  from_json, num, fmt, rep, concat, sort = cjson.decode, tonumber, string.format, string.rep, table.concat, table.sort
  max, min, floor, byte, match = math.max, math.min, math.floor, string.byte, string.match
  local time = call('TIME')
  m = nil
  X = {
    S = KEYS[1], O = KEYS[2], L = KEYS[3], G = KEYS[4], I = KEYS[5], D = KEYS[6], A = A,
    now = num(time[1]) * 1000000 + num(time[2]),
    gate = A[2], said_inc = A[3], said_epoch = num(A[4]), number = num(A[5]),
    nonce = A[6], server = A[7], said_step = num(A[8]), applied = num(A[9]),
    said_version = num(A[10]), digest = A[11], part = A[12], said_idle = num(A[13]),
    recalled = num(A[14]), hold_us = num(A[15]), past_us = num(A[16]), said_ttl = num(A[17]),
    said_done = num(A[18]), said_queued = num(A[19]), said_vtime = num(A[20]),
    said_unspent = num(A[21]), leaving = A[22] == '1', label = A[23], terms = A[26],
    at = 27,                   -- where in A the lists begin
    pushes = 0, touched = 0,
    puts = {}, dels = {},      -- fields of the state to write and to delete at the end
    fetched = {},              -- fields as they were, false: missing
    recs = {}, bals = {},
    opens = {}, stale = false, -- open units of pods that the index does not have yet
    listed = {},               -- pods of a gate's terms, by digest
    gates = 0,                 -- gates that live
    idle_noted = 0,            -- the speaker's idle credit as the index has it
  }
end

-- Whether nothing of the state is missing. Whose life each key is of is asked when a gate joins.
function F.is_whole(blob, cold)
  if not (blob and cold) or call('EXISTS', X.O, X.L, X.G, X.I) < 4 then return false end
  if F.rec(X.gate) then return true end
  local mark = '#' .. m.inc
  return call('ZSCORE', X.O, mark) and call('ZSCORE', X.L, mark) and call('ZSCORE', X.G, mark) and call('ZSCORE', X.I, mark)
end

function F.run()
  local blob, cold = F.fetch()
  if blob and cold then
    F.read_m(blob, cold)
  else
    m = { ttl = 0, clock = 0, seen = X.now, step = 0, epochs = 0, vtime = 0, fair = 0, inc = '', limited = 0 }
  end
  local mine = F.rec(X.gate)
  if mine and mine.syncing ~= 1 then X.idle_noted = mine.idle end
  m.ttl = max(m.ttl, X.said_ttl)
  m.clock = m.clock + min(max(0, X.now - m.seen), floor(m.ttl / 5))
  m.seen = X.now
  F.notice_loss(F.is_whole(blob, cold))
  m.step = m.step + 1
  F.reap()
  local verdict = F.hear()
  if verdict == 'a' then
    if X.leaving then F.end_epoch(X.gate) else F.note_idle() end
  end
  X.gates = call('ZCARD', X.G) - 1
  if verdict == 'a' and m.clock >= m.until_ then F.serve() end
  if m.tight == 1 and not F.is_pool_over() then m.tight = 0 end
  local reply = F.answer(verdict)
  F.write_down()
  return reply
end

redis.register_function('@NAME@', function(KEYS, A)
  -- Somebody who only looks whether it is here.
  if #KEYS == 0 then return 0 end
  F.start(KEYS, A)
  return F.run()
end)
