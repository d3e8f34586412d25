-- Jobs that wait for room, for many gates: a batch of operations, each done whole, in order.
-- KEYS
--   1 queue  zset: jobs that may be taken, by when they came (server's Unix time, us)
--   2 taken  zset: jobs that a gate works at, by when they are free again if it says no more (server's ms)
--   3 later  zset: jobs that are tried again, by when (server's ms)
--   and keys made of ARGV 1 (the pool's stem, so in one slot): `job:ID` a hash of m = what is said of it (JSON), w = the
--   request, n = when it came (us), s = q, t (taken) or r (running), p = digest, k = key, and once known tries, error, ends (ms),
--   status, cut, a = the answer; `jobkey:KEY` a hash whose id names the job of a key.
-- ARGV
--   1 the stem, then per operation its name and arguments. Times are spans in ms; the clock is this server's.
--   put ID KEY(or empty) PRINT MOST META WORK · find KEY · look ID · take MOST LEASE · renew LEASE N ID... · begin ID ·
--   finish ID KEPT ENDS(their Unix ms) STATUS(or empty) CUT ERROR ANSWER · back ID PAUSE ERROR(or empty) · cancel ID · count
-- Answers one list per operation: put: stored, same + job, differs or full; find, look: job or nothing; take: ID, m, tries,
--   w per job; count: how many are not over; others 1 or 0, whether the job was there. A job is ID, m, s, tries, error,
--   ends, status, cut, a; fields it lacks are empty.
-- A job whose gate fell silent is taken again: at least once. The first answer stays. A script, because each operation
-- reads and writes several keys in one step.

local call, stem = redis.call, ARGV[1]
local queue, taken, later = KEYS[1], KEYS[2], KEYS[3]
local time = call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(now_us / 1000)
local at = 2

local function arg()
  local value = ARGV[at]
  at = at + 1
  return value
end

local function text(number) return string.format('%.0f', number) end
local function job_key(id) return stem .. 'job:' .. id end
local function name_key(key) return stem .. 'jobkey:' .. key end
local function open() return call('ZCARD', queue) + call('ZCARD', taken) + call('ZCARD', later) end

local function leave(id)
  call('ZREM', queue, id)
  call('ZREM', later, id)
  return call('ZREM', taken, id)
end

local function job(id)
  local f = call('HMGET', job_key(id), 'm', 's', 'tries', 'error', 'ends', 'status', 'cut', 'a')
  if not f[1] then return {} end
  local answer = { id }
  for i = 1, 8 do answer[i + 1] = f[i] or '' end
  return answer
end

local function id_of(key) return call('HGET', name_key(key), 'id') end

-- Jobs whose gate fell silent, and those whose pause is over, may be taken.
local function wake(from)
  for _, id in ipairs(call('ZRANGEBYSCORE', from, '-inf', text(now), 'LIMIT', 0, 128)) do
    call('ZREM', from, id)
    local n = call('HGET', job_key(id), 'n')
    if n then
      call('ZADD', queue, n, id)
      call('HSET', job_key(id), 's', 'q')
    end
  end
end

local ops = {}

function ops.put()
  local id, key, print_, most, meta, work = arg(), arg(), arg(), tonumber(arg()), arg(), arg()
  local found = key ~= '' and id_of(key)
  if found then
    if call('HGET', job_key(found), 'p') ~= print_ then return { 'differs' } end
    local answer = job(found)
    table.insert(answer, 1, 'same')
    return answer
  end
  if open() >= most then return { 'full' } end
  call('HSET', job_key(id), 'm', meta, 'w', work, 'n', text(now_us), 's', 'q', 'p', print_, 'k', key)
  call('ZADD', queue, text(now_us), id)
  if key ~= '' then call('HSET', name_key(key), 'id', id) end
  return { 'stored' }
end

function ops.find()
  local id = id_of(arg())
  return id and job(id) or {}
end

function ops.look() return job(arg()) end

function ops.take()
  local most, lease = tonumber(arg()), tonumber(arg())
  wake(taken)
  wake(later)
  local answer = {}
  for _, id in ipairs(call('ZRANGE', queue, 0, most - 1)) do
    call('ZREM', queue, id)
    local f = call('HMGET', job_key(id), 'm', 'tries', 'w')
    if f[1] and f[3] then
      call('ZADD', taken, text(now + lease), id)
      call('HSET', job_key(id), 's', 't')
      answer[#answer + 1] = id
      answer[#answer + 1] = f[1]
      answer[#answer + 1] = f[2] or '0'
      answer[#answer + 1] = f[3]
    end
  end
  return answer
end

function ops.renew()
  local lease = tonumber(arg())
  for _ = 1, tonumber(arg()) do call('ZADD', taken, 'XX', text(now + lease), arg()) end
  return { 1 }
end

function ops.begin()
  local id = arg()
  if not call('HGET', job_key(id), 'w') then return { 0 } end
  call('HSET', job_key(id), 's', 'r')
  return { 1 }
end

function ops.finish()
  local id, kept, ends, status, cut, error_, answer = arg(), arg(), arg(), arg(), arg(), arg(), arg()
  local f = call('HMGET', job_key(id), 'w', 'k', 'tries')
  if not f[1] then return { 0 } end
  leave(id)
  call('HDEL', job_key(id), 'w')
  call('HSET', job_key(id), 'ends', ends)
  if status == '' then
    call('HSET', job_key(id), 'error', error_, 'tries', text(tonumber(f[3] or '0') + 1))
  else
    call('HSET', job_key(id), 'status', status, 'cut', cut, 'a', answer, 'error', '')
  end
  call('PEXPIRE', job_key(id), kept)
  if f[2] and f[2] ~= '' then call('PEXPIRE', name_key(f[2]), kept) end
  return { 1 }
end

function ops.back()
  local id, pause, error_ = arg(), tonumber(arg()), arg()
  -- Another has it by now, or it is over.
  if call('ZREM', taken, id) == 0 then return { 0 } end
  local f = call('HMGET', job_key(id), 'n', 'tries')
  if not f[1] then return { 0 } end
  if error_ ~= '' then
    call('HSET', job_key(id), 'error', error_, 'tries', text(tonumber(f[2] or '0') + 1))
  end
  call('HSET', job_key(id), 's', 'q')
  if pause > 0 then
    call('ZADD', later, text(now + pause), id)
  else
    call('ZADD', queue, f[1], id)
  end
  return { 1 }
end

function ops.cancel()
  local id = arg()
  local key = call('HGET', job_key(id), 'k')
  if not key then return { 0 } end
  leave(id)
  if key ~= '' then call('DEL', name_key(key)) end
  call('DEL', job_key(id))
  return { 1 }
end

function ops.count() return { open() } end

local answers = {}
while at <= #ARGV do
  answers[#answers + 1] = ops[arg()]()
end
return answers
