-- The pool's document: what all gates obey beside their own files. Read or stored whole.
-- KEYS
--   1 document  hash: v = version, patch = an RFC 7396 merge patch (JSON),
--               pods = {"NAME": {"url", "capacity", "until_ms"}} (JSON)
-- ARGV to read:  1 `get`
--   answers v, patch (`{}`: none), pods, the server's Unix time in milliseconds (as a string: it passes Lua's own format)
-- ARGV to store: 1 `store`, 2 the version it was made from, 3 patch, 4 pods, 5 its own version
--   answers 1 and the version stored now; or 0 and the version that another stored meanwhile.
-- A document that differs from the stored one in more than `until_ms` gets a higher version. One that differs in
-- nothing else (a pod that stays) keeps the version, and of two times the later counts: so two pods that are
-- renewed at once do not undo each other. A document whose own version is higher (the ledger lost it and a gate puts
-- it back) keeps that.
-- A script, because the version is compared and the rest written in one step.

local key, call = KEYS[1], redis.call
local found = call('HMGET', key, 'v', 'patch', 'pods')
local v, patch, pods = tonumber(found[1] or '0'), found[2] or '{}', found[3] or '{}'

if ARGV[1] == 'get' then
  local time = call('TIME')
  return { v, patch, pods, string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)) }
end

local expected, new_patch, own = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[5])
if v ~= expected then return { 0, v } end

local old, new = cjson.decode(pods), cjson.decode(ARGV[4])
local differs = new_patch ~= patch
for name, pod in pairs(new) do
  local before = old[name]
  if before and before.url == pod.url and before.capacity == pod.capacity then
    pod.until_ms = math.max(pod.until_ms, before.until_ms)
  else
    differs = true
  end
end
for name in pairs(old) do
  if not new[name] then differs = true end
end

v = math.max(own, differs and expected + 1 or expected)
call('HSET', key, 'v', string.format('%.0f', v), 'patch', new_patch, 'pods', cjson.encode(new))
return { 1, v }
