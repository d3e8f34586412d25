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

-- Each call makes every function anew, which costs time for each outer variable that it uses. So what functions share
-- is in two tables: X, what this call knows, and F, the functions.

local call, pack, unpack_ = redis.call, cmsgpack.pack, cmsgpack.unpack
local num, fmt, max, min, floor = tonumber, string.format, math.max, math.min, math.floor
local m                      -- the ledger's own figures
local F = {}

local A = ARGV
local time = call('TIME')
local X = {
  S = KEYS[1], O = KEYS[2], L = KEYS[3], G = KEYS[4], I = KEYS[5], D = KEYS[6], A = A, US = string.char(31),
  REAP_MAX = 4, RELEASE_MAX = 64, CREDIT_PODS_MAX = 64, LOOK_MAX = 256, PART_MAX = 64,
  OUTSIDE_US = 1000000, GATE_PACE_US = 100, MICRO = 1000000,
  now = num(time[1]) * 1000000 + num(time[2]),
  gate = A[2], said_inc = A[3], said_epoch = num(A[4]), number = num(A[5]),
  nonce = A[6], server = A[7], said_step = num(A[8]), applied = num(A[9]),
  said_version = num(A[10]), digest = A[11], part = A[12], said_idle = num(A[13]),
  recalled = num(A[14]), hold_us = num(A[15]), past_us = num(A[16]), said_ttl = num(A[17]),
  said_done = num(A[18]), said_queued = num(A[19]), said_vtime = num(A[20]),
  said_unspent = num(A[21]), leaving = A[22] == '1', label = A[23], terms = A[26],
  at = 27,                   -- where in ARGV the lists begin
  pushes = 0, touched = 0,
  puts = {}, dels = {},      -- fields of the state to write and to delete at the end
  recs = {}, holds = {}, bals = {},
  accounts = nil, accounts_changed = false, -- names of all accounts, once somebody needs them
  listed = {},               -- pods of a gate's terms, by digest
  gates = 0,                 -- gates that live
}
