-- All gates that the pool's ledger knows, for those who watch. Writes nothing.
-- KEYS  1 state, 2 seen: as in exchange.lua
-- ARGV  1 `gone`, or nothing
-- With `gone` it answers, per gate that is gone and whose units still count, two strings: id, milliseconds until they come
-- back. Else:
-- Answers, per gate in the order of their ids, eight strings: id (32 hexadecimal digits), label, units in use by its
-- leases, idle credit, asks waiting, milliseconds since its last exchange, version of the document it obeys, digest of
-- its terms.
-- A script, because the records are packed and should all be of one moment.

local call = redis.call
local blob = call('HGET', KEYS[1], 'm')
if not blob then return {} end
-- As exchange/state.lua packs them.
local last_clock, seen = struct.unpack('dd', blob)
local function record(text)
  local one, _ = {}, nil
  _, _, _, one.last, _, _, one.idle, _, one.version, _, _, _, one.in_use, one.waiting, _, _, _, one.digest, _, one.label =
    struct.unpack('dddddddddddddddddssI2c0', text)
  return one
end
local time = call('TIME')
-- The ledger's clock, had somebody exchanged just now. It is not held back here: how long a gate has been silent is
-- what a reader wants to know.
local clock = last_clock + math.max(0, tonumber(time[1]) * 1000000 + tonumber(time[2]) - seen)

if ARGV[1] == 'gone' then
  local gone, cold = {}, call('HGET', KEYS[1], 'c')
  for _, one in ipairs(cold and cmsgpack.unpack(cold).remains or {}) do
    gone[#gone + 1] = one[2]
    gone[#gone + 1] = string.format('%.0f', math.ceil(math.max(0, one[1] - clock) / 1000))
  end
  return gone
end

local ids = {}
for _, id in ipairs(call('ZRANGE', KEYS[2], 0, -1)) do
  if string.byte(id) ~= 35 then ids[#ids + 1] = id end
end
table.sort(ids)

local all = {}
local function add(value)
  all[#all + 1] = type(value) == 'number' and string.format('%.0f', value) or value
end
for _, id in ipairs(ids) do
  local one = call('HGET', KEYS[1], 'g:' .. id)
  if one then
    one = record(one)
    add(id)
    add(one.label)
    add(one.in_use)
    add(one.idle)
    add(one.waiting)
    add(math.floor(math.max(0, clock - one.last) / 1000))
    add(one.version)
    add(one.digest)
  end
end
return all
