-- Tries each command that the other scripts use, on a key of its own that it removes, for `check --online`.
-- KEYS  1 a key that nobody uses
-- ARGV  1 a channel that nobody hears
-- Answers two strings per command that failed: its name, and the server's words.
-- A script, because the server looks at a user's rights for the commands inside scripts too.

local key = KEYS[1]
local failed = {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    failed[#failed + 1] = (...)
    failed[#failed + 1] = answer.err
  end
end

-- First what a full server refuses: after a script's first write it refuses nothing more.
try('HSET', key, 'a', '1')
try('TIME')
try('EXISTS', key)
try('HGET', key, 'a')
try('HMGET', key, 'a')
try('HDEL', key, 'a')
try('DEL', key)
try('ZADD', key, 1, 'a')
try('ZCARD', key)
try('ZSCORE', key, 'a')
try('ZRANGE', key, 0, -1)
try('ZRANGEBYSCORE', key, 1, 1)
try('ZREVRANGEBYSCORE', key, 1, 1)
try('ZREM', key, 'a')
try('DEL', key)
try('PUBLISH', ARGV[1], '')
return failed
