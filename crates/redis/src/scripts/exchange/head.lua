#!lua name=@NAME@
-- One exchange of one gate with the pool's ledger. The Rust twin is `Keeper::exchange` in crates/core/src/keeper.rs:
-- same steps, same order, same names; a test compares the two reply by reply and state by state.
--
-- KEYS (one hash tag, so one slot)
--   1 state     hash: m = the ledger's own figures that change often, c = those that do not; g:GATE = a gate's record;
--               w:GATE = its waiters in `line`, one a line; b:ACCOUNT = limit, held, outside, then epoch and units of each
--               that holds any, what is on its way to it included; B = names of all accounts; t:DIGEST = terms, JSON;
--               of a gate that fell silent: h:EPOCH = accounts it holds, u:EPOCH = what its apis used
--   2 open      zset: pods with units that nobody holds, by those units
--   3 line      zset: waiters of all gates, by rank (us on the ledger's clock; virtual tags under `fair`)
--   4 seen      zset: gates, by the ledger's clock at their last exchange, us
--   5 idle      zset: gates, by their idle credit, units
--   6 document  hash, read only here: v = version of the pool's document
--   2 to 5 hold one more member, `#INCARNATION`, so that none is ever empty: a key that was lost is noticed by its
--   absence, one of another life when a gate joins.
-- ARGV and reply: crates/redis/src/codec.rs. Units are integers, times are microseconds. Accounts are named a:API (its
-- max), p:POD (its capacity) and t (the trickle).
-- No key expires: only the ledger's clock ends anything, and it advances by at most a heartbeat per exchange.
--
-- A library, not a script for EVALSHA: that would make each of these functions anew for every exchange, and take
-- most of its time for it. What a call knows is in X and m, both set anew before anything is read of them. Nothing else
-- outside of a function ever changes: no call may leave anything behind for the next but in the keys.

local US = '\31'
local REAP_MAX, RELEASE_MAX, CREDIT_PODS_MAX, LOOK_MAX, PART_MAX = 4, 64, 64, 256, 64
local OUTSIDE_US, GATE_PACE_US, MICRO = 1000000, 100, 1000000
-- Later than any time.
local NEVER = 9007199254740991
-- Most values that one command takes.
local MANY = 2000

-- The server's own functions, none of which is there yet while this is loaded; F.start names them.
local call, pack, unpack_, to_bytes, of_bytes, from_json
local num, fmt, rep, byte, match, max, min, floor, concat, sort
local m                      -- the ledger's own figures
local X                      -- what this call knows
local F = {}                 -- the functions
