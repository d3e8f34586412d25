--- Admission by Sluicegate's decision service, for nginx with its Lua module, Kong and APISIX.
--
-- One request is decided once. Its lease is asked for in the access phase, under an id that this worker chose and wrote
-- down before it asked; the log phase gives back whatever is written down for its request, whether it was granted, is
-- still waited for, or was answered to nobody. So no ending needs code of its own.
--
-- What is written down hangs on the address of nginx's request and not on `ngx.ctx`, which an internal redirect
-- (`error_page`, `try_files`, `ngx.exec`) empties, nor on a variable, which a `set` of the server overwrites then.
--
-- State is the worker's. Whatever is not given back (a killed worker) ends by its hold at the service.

local base = require "resty.core.base"
local cjson = require "cjson.safe"
local ffi = require "ffi"

local ngx = ngx
local get_request = base.get_request
local pairs, tonumber, tostring, type = pairs, tonumber, tostring, type

local M = { VERSION = "0.1.0" }

--- Idle connections to the service are kept for less than the service keeps them (30 s).
local IDLE_MS = 20000
--- Ids in one batch: far below the service's bounds (2000 ids, 64 KiB).
local BATCH_MAX = 500
--- Given-back leases that the worker remembers while the service is away. More would have ended by their hold anyway.
local BACK_MAX = 100000
--- So many asks in a row must time out before the service is taken to hang, and only then it is asked once in AWAY_S. A
--- connection that is refused costs nothing, and is tried each time.
local TIMEOUTS_MAX = 3
local AWAY_S = 1
--- Time between two looks for leases to renew, and how long a worker without leases goes on looking.
local LOOK_S = 0.25
local IDLE_LOOKS_MAX = 20
--- A timer's memory is freed when it ends, so that the one that looks makes place for a new one after so many looks.
local LOOKS_MAX = 200
--- Other pods tried after one that did not take the request up, as `gateway.retry.attempts`.
local AGAIN_MAX = 2
--- Longest body of an answer that is read, bytes.
local ANSWER_MAX = 65536

M.DEFAULTS = {
    decisions = "http://127.0.0.1:8090",
    on_loss = "fail-closed",
    on_disconnect = "continues",
    connect_ms = 500,
    answer_ms = 5000,
    lease_max_s = 86400,
    pool = 256,
}

--- What this worker holds: by the address of the request.
local held = {}
local held_count = 0
--- One for each address of a service, and its token.
local services = {}
--- The first part of this worker's ids, and whose it is: state from before the fork must not be shared.
local prefix, prefix_pid, drawn = nil, nil, 0

-- ------------------------------------------------------------------------------------------------ small things

local function draw_prefix()
    local file = io.open("/dev/urandom", "rb")
    local bytes = file and file:read(12)
    if file then file:close() end
    if not bytes or #bytes < 12 then
        error("sluicegate: /dev/urandom cannot be read, and ids of leases must not meet")
    end
    return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

local function new_id()
    local pid = ngx.worker.pid()
    if prefix_pid ~= pid then
        prefix, prefix_pid, drawn = draw_prefix(), pid, 0
    end
    drawn = drawn + 1
    return ("%s-%d"):format(prefix, drawn)
end

--- The address of the main request: the same through every redirect, and nobody else's before the log phase.
local function this_request()
    return tonumber(ffi.cast("uintptr_t", get_request()))
end

local function write_down(key, entry)
    if not held[key] then held_count = held_count + 1 end
    held[key] = entry
end

local function cross_out(key)
    if held[key] then held_count = held_count - 1 end
    held[key] = nil
end

--- Host, port and scheme of a pod's url.
local function split_url(url)
    local scheme, authority = url:match("^(%w+)://([^/]+)")
    if not scheme then return nil end
    local host, port = authority:match("^(%[[^%]]+%]):?(%d*)$")
    if not host then host, port = authority:match("^([^:]+):?(%d*)$") end
    if not host then return nil end
    return host, tonumber(port) or (scheme == "https" and 443 or 80), scheme
end

--- An answer of ours: a problem document (RFC 9457).
function M.problem(status, reason, title, detail)
    local body = { type = "urn:sluicegate:problem:" .. reason, title = title, status = status, detail = detail,
        reason = reason }
    return { status = status, headers = { ["Content-Type"] = "application/problem+json" }, body = cjson.encode(body) }
end

--- The same for a request that was not admitted.
function M.refusal(status, reason, title, detail)
    local answer = M.problem(status, reason, title, detail)
    answer.kind, answer.headers["x-sluicegate-reason"], answer.headers["Retry-After"] = "refused", reason, "1"
    return answer
end

-- ------------------------------------------------------------------------------------------------ one HTTP exchange

local function service_of(conf)
    local key = conf.decisions .. "\n" .. (conf.token or "")
    local service = services[key]
    if service then return service end
    local path = conf.decisions:match("^unix:/*(/.+)$")
    local host, port = split_url(conf.decisions)
    if not path and not host then
        error("sluicegate: decisions = " .. tostring(conf.decisions) .. ": write http://HOST:PORT or unix:/PATH")
    end
    service = {
        path = path, host = host, port = port, token = conf.token,
        connect_ms = conf.connect_ms, answer_ms = conf.answer_ms,
        options = { pool = "sluicegate:" .. conf.decisions, pool_size = conf.pool },
        -- Leases to give back, oldest first, each with the time at which it has ended by itself.
        back = {}, first = 1, last = 0, giving = false,
        looking = false,
        timeouts = 0, ask_again = 0,
    }
    services[key] = service
    return service
end

local function open(service)
    local socket = ngx.socket.tcp()
    socket:settimeouts(service.connect_ms, service.connect_ms, service.answer_ms)
    local ok, err
    if service.path then
        ok, err = socket:connect("unix:" .. service.path, service.options)
    else
        ok, err = socket:connect(service.host, service.port, service.options)
    end
    if not ok then return nil, "connect: " .. tostring(err) end
    return socket
end

--- Reads an answer. A third value says that nothing had come when it failed.
local function read_answer(socket)
    local line, err = socket:receive("*l")
    if not line then return nil, "answer: " .. tostring(err), true end
    local status = tonumber(line:match("^HTTP/1%.1 (%d%d%d)"))
    if not status then return nil, "answer: not HTTP/1.1: " .. line:sub(1, 40) end
    local headers = {}
    while true do
        line, err = socket:receive("*l")
        if not line then return nil, "headers: " .. tostring(err) end
        if line == "" then break end
        local name, value = line:match("^([^:]+):%s*(.-)%s*$")
        if name then headers[name:lower()] = value end
    end
    local length = tonumber(headers["content-length"] or (status == 204 and 0) or nil)
    if not length or length > ANSWER_MAX then return nil, "answer: without a usable content-length" end
    local body = ""
    if length > 0 then
        body, err = socket:receive(length)
        if not body then return nil, "body: " .. tostring(err) end
    end
    return { status = status, headers = headers, body = body }
end

--- One call. Calls may be repeated: asks have an id, and giving back twice changes nothing.
local function call(service, method, target, body)
    local head = {
        method, " ", target, " HTTP/1.1\r\nHost: ", service.host or "localhost",
        "\r\nContent-Type: application/json\r\nContent-Length: ", #body, "\r\n",
    }
    if service.token then
        head[#head + 1] = "Authorization: Bearer " .. service.token .. "\r\n"
    end
    head[#head + 1] = "\r\n"
    head[#head + 1] = body
    while true do
        local socket, err = open(service)
        if not socket then return nil, err end
        -- A kept connection may have been closed by the service at this moment: that says nothing about it.
        local is_kept = socket:getreusedtimes() > 0
        local sent, nothing_came
        sent, err = socket:send(head)
        nothing_came = not sent
        if sent then
            local answer
            answer, err, nothing_came = read_answer(socket)
            if answer then
                if (answer.headers["connection"] or ""):lower() == "close" then
                    socket:close()
                else
                    socket:setkeepalive(IDLE_MS)
                end
                return answer
            end
        end
        socket:close()
        if not (is_kept and nothing_came and not tostring(err):find("timeout", 1, true)) then
            return nil, err
        end
    end
end

-- ------------------------------------------------------------------------------------------------ giving back

--- Ids to be given back in one call, and those of requests whose pod failed, which the service counts one by one.
local function next_batch(service)
    local ids, failed, now = {}, {}, ngx.now()
    while service.first <= service.last and #ids + #failed < BATCH_MAX do
        local lease = service.back[service.first]
        service.back[service.first] = nil
        service.first = service.first + 1
        if lease.ends > now then
            if lease.outcome then
                failed[#failed + 1] = lease.id .. "?outcome=" .. lease.outcome
            else
                ids[#ids + 1] = lease.id
            end
        end
    end
    return ids, failed
end

--- Tries for a while. The last words of a worker that goes are not repeated for long.
local function insist(service, method, target, body)
    local tries = ngx.worker.exiting() and 5 or 60
    for try = 1, tries do
        local answer, err = call(service, method, target, body)
        if answer and answer.status < 300 then return end
        if answer and answer.status < 500 then
            ngx.log(ngx.ERR, "sluicegate: leases not given back: ", answer.status, " ", answer.body)
            return
        end
        if try == 1 then ngx.log(ngx.WARN, "sluicegate: leases not given back yet: ", err or answer.status) end
        ngx.sleep(math.min(0.05 * 2 ^ try, 1))
    end
    ngx.log(ngx.ERR, "sluicegate: leases not given back; they end by their hold: ", target, " ", body)
end

local function give_batch(service)
    local ids, failed = next_batch(service)
    if #ids > 0 then insist(service, "POST", "/v1/leases/release", cjson.encode({ ids = ids })) end
    for _, id in ipairs(failed) do insist(service, "DELETE", "/v1/leases/" .. id, "") end
end

--- One timer for all that comes while it is at it: as many as come, never more timers.
local function give_all(_, service)
    while service.first <= service.last do
        -- An error here must not leave the mark set, or nothing would be given back any more.
        local ok, err = pcall(give_batch, service)
        if not ok then ngx.log(ngx.ERR, "sluicegate: ", err) end
    end
    service.giving = false
end

--- Starts the timer unless it runs. If there is no place for it the next request tries again.
local function start_giving(service)
    if service.giving or service.first > service.last then return end
    local ok, err = ngx.timer.at(0, give_all, service)
    if not ok then
        ngx.log(ngx.ERR, "sluicegate: no timer to give leases back, the next request tries again: ", err)
    end
    service.giving = ok and true or false
end

local function give_back(entry, outcome)
    local service = entry.service
    if service.last - service.first >= BACK_MAX then
        ngx.log(ngx.ERR, "sluicegate: too many leases to give back; this one ends by its hold: ", entry.id)
        return
    end
    service.last = service.last + 1
    service.back[service.last] = { id = entry.id, outcome = outcome, ends = entry.ends or (ngx.now() + 600) }
    start_giving(service)
end

-- ------------------------------------------------------------------------------------------------ renewing

local function renew(service, entry)
    local answer, err = call(service, "PUT", "/v1/leases/" .. entry.id, "")
    if not answer or answer.status >= 500 then
        ngx.log(ngx.WARN, "sluicegate: lease not renewed yet: ", err or answer.status)
        return
    end
    local lease = answer.status == 200 and cjson.decode(answer.body)
    if not lease then
        ngx.log(ngx.WARN, "sluicegate: the service knows no lease ", entry.id, " any more; its request goes on")
        entry.renew_at = nil
        return
    end
    M._granted(entry, lease)
end

local function renew_due(service)
    local due, now = {}, ngx.now()
    for _, entry in pairs(held) do
        if entry.service == service and entry.renew_at and entry.renew_at <= now then due[#due + 1] = entry end
    end
    for _, entry in pairs(due) do
        if now - entry.asked > entry.lease_max_s then
            ngx.log(ngx.ERR, "sluicegate: lease ", entry.id, " is older than lease_max_s and is renewed no more")
            entry.renew_at = nil
        elseif entry.renew_at then
            -- A call yields, and meanwhile the request may have ended: renewing an ended lease changes nothing.
            renew(service, entry)
        end
    end
end

--- Runs while this worker holds leases; asleep most of the time. A loop and not a timer each time, because a worker
--- that goes (reload) gets no timers any more, and its long requests need their leases still.
local function look(_, service)
    local idle = 0
    for _ = 1, LOOKS_MAX do
        ngx.sleep(LOOK_S)
        local ok, err = pcall(renew_due, service)
        if not ok then ngx.log(ngx.ERR, "sluicegate: ", err) end
        start_giving(service)
        idle = held_count == 0 and idle + 1 or 0
        if idle >= IDLE_LOOKS_MAX or (held_count == 0 and ngx.worker.exiting()) then
            service.looking = false
            return
        end
    end
    service.looking = ngx.timer.at(0, look, service) and true or false
end

local function start_looking(service)
    if service.looking then return end
    local ok, err = ngx.timer.at(0, look, service)
    if not ok then ngx.log(ngx.ERR, "sluicegate: no timer to renew leases, the next request tries again: ", err) end
    service.looking = ok and true or false
end

--- The service's words about a lease that is held. Renewed when a third of its time is over.
function M._granted(entry, lease)
    local now = ngx.now()
    entry.id = lease.id
    local left_s = lease.expires_in_ms and lease.expires_in_ms / 1000
    entry.ends = left_s and now + left_s
    entry.renew_at = left_s and now + left_s / 3
end

-- ------------------------------------------------------------------------------------------------ asking

--- The service gave no answer that can be used: what happens to the request is the operator's choice.
local function lost(conf, service, why)
    if service and why:find("timeout", 1, true) then
        service.timeouts = service.timeouts + 1
        service.ask_again = ngx.now() + AWAY_S
    end
    if why then ngx.log(ngx.ERR, "sluicegate: no decision, on_loss = ", conf.on_loss, ": ", why) end
    if conf.on_loss == "fail-open" then return { kind = "pass" } end
    return M.refusal(503, "no_decision", "The decision service does not answer",
        "Nothing is admitted without it here (on_loss: fail-closed).")
end

--- After some time-outs in a row only one request in a while asks; all others need not wait to learn the same.
local function hangs(service)
    if service.timeouts < TIMEOUTS_MAX then return false end
    local now = ngx.now()
    if now < service.ask_again then return true end
    service.ask_again = now + AWAY_S
    return false
end

local PASSED_ON = { ["content-type"] = "Content-Type", ["retry-after"] = "Retry-After",
    ["x-sluicegate-reason"] = "x-sluicegate-reason" }

local function refused(answer)
    local headers = {}
    for name, proper in pairs(PASSED_ON) do
        headers[proper] = answer.headers[name]
    end
    return { kind = "refused", status = answer.status, headers = headers, body = answer.body }
end

local function admitted(conf, entry, answer)
    local lease = cjson.decode(answer.body)
    local host, port, scheme
    if type(lease) == "table" and type(lease.id) == "string" and type(lease.url) == "string" then
        host, port, scheme = split_url(lease.url)
    end
    if not host then
        return lost(conf, nil, "an answer that is no lease: " .. answer.body)
    end
    M._granted(entry, lease)
    return { kind = "admitted", id = lease.id, pod = lease.pod, host = host, port = port, scheme = scheme }
end

--- Asks, with the entry written down already.
local function ask(conf, entry, request)
    local service = entry.service
    if hangs(service) then return lost(conf, nil, nil) end
    entry.may_be_held = true
    local api = request.api or conf.api
    local body = cjson.encode({
        id = entry.id, api = api, method = not api and request.method or nil,
        path = not api and request.path or nil, wait_ms = conf.wait_ms, hold_ms = conf.hold_ms,
        after = entry.after,
    })
    local answer, err = call(service, "POST", "/v1/leases", body)
    if not answer then
        entry.may_be_held = err:sub(1, 8) ~= "connect:"
        return lost(conf, service, err)
    end
    service.timeouts = 0
    if answer.status == 201 then return admitted(conf, entry, answer) end
    entry.may_be_held = false
    local reason = answer.headers["x-sluicegate-reason"]
    if answer.status == 429 or (answer.status == 503 and reason and reason ~= "draining") then
        return refused(answer)
    end
    -- Draining, a wrong token, an ask that is not understood: no decision, and nothing that waiting would mend.
    return lost(conf, nil, answer.status .. " " .. answer.body)
end

--- Asks for the entry's request under a new id, and writes the verdict down.
local function settle(conf, entry)
    entry.id, entry.verdict = new_id(), nil
    local began = ngx.now()
    local verdict = ask(conf, entry, entry.request)
    verdict.waited_ms = (entry.waited_ms or 0) + math.floor((ngx.now() - began) * 1000 + 0.5)
    entry.waited_ms = verdict.waited_ms
    entry.verdict = verdict
    if verdict.kind ~= "admitted" and entry.may_be_held then
        -- An answer that did not come, or was not understood, may have been a grant.
        entry.may_be_held = false
        give_back(entry)
    end
    return verdict
end

--- Decides the current request; waits in the service's queue. Access phase only.
--
-- `request` is `{method = M, path = P}`, with `api = NAME` if that is known. Gives a verdict whose `kind` is
--
-- * `admitted`: run it on `host`, `port` (`scheme`, `pod`, `id` and `waited_ms` say more);
-- * `refused`: answer `status`, `headers`, `body`;
-- * `pass`: there is no decision, and `on_loss` is `fail-open`: run it as if there were no Sluicegate.
--
-- A second call in the same request gives the same verdict and takes nothing.
function M.decide(conf, request)
    local key, started = this_request(), ngx.req.start_time()
    local entry = held[key]
    if entry and entry.started == started then
        if entry.verdict then return entry.verdict end
    elseif entry then
        -- Its request ended without a log phase of ours, and nginx gave its memory to this one.
        ngx.log(ngx.ERR, "sluicegate: a request ended in a place without log_by_lua; its lease is given back now")
        cross_out(key)
        if entry.may_be_held then give_back(entry) end
    end
    local service = service_of(conf)
    entry = { service = service, started = started, asked = ngx.now(), request = request,
        lease_max_s = conf.lease_max_s, on_disconnect = conf.on_disconnect }
    write_down(key, entry)
    start_looking(service)
    return settle(conf, entry)
end


-- ------------------------------------------------------------------------------------------------ the end

--- The last of nginx's comma- and colon-separated values: that of the last pod tried.
local function last_of(name)
    local value = ngx.var[name]
    return value and value:match("([^,:%s]+)%s*$")
end

--- The answer is complete, or all of it had come before its client was found gone.
local function is_whole()
    local length = tonumber(last_of("upstream_http_content_length"))
    local came = tonumber(last_of("upstream_response_length")) or 0
    return ngx.var.request_completion == "OK" or (length and came >= length)
end

--- How the last run went: `not_started` if it surely never reached the pod, `pod_full` if the pod's own lock refused,
-- `given_up` if nginx had no answer in time, `cut` if the answer broke off (nginx hangs up on the pod when it cannot
-- write to a client, and does not say whether that was it), `failed` if the pod did; nil if it answered. After
-- `given_up` and `cut` the pod may work on, and nobody sees its end.
local function last_run()
    local status = last_of("upstream_status")
    if last_of("upstream_header_time") ~= "-" then
        if status == "429" then return "pod_full" end
        return status and not is_whole() and "cut" or nil
    end
    local is_error = status == "502" or status == "504"
    if last_of("upstream_connect_time") == "-" then return is_error and "not_started" or nil end
    if status == "504" then return "given_up" end
    return status == "502" and "failed" or nil
end

--- What the service is told of a run that was the last one.
local OUTCOMES = { failed = "failed", given_up = "failed", not_started = "unreachable" }

--- Gives back what the current request holds. Log phase only; for requests that hold nothing it does nothing.
function M.done()
    if ngx.is_subrequest then return end
    local key = this_request()
    local entry = held[key]
    if not entry then return end
    cross_out(key)
    if not entry.may_be_held then return end
    local went = entry.verdict and last_run()
    -- A lease that is neither given back nor renewed stays with the pod to the end of its hold.
    if (went == "given_up" or went == "cut") and entry.on_disconnect ~= "stops" then return end
    give_back(entry, OUTCOMES[went])
end

--- After a run that the pod did not take up: gives its lease back, says why, and asks anew; the ask keeps its old
-- place in the queue and what is left of its wait. The new verdict, or nil if there was such a run too often, or none.
function M.decide_again(conf)
    local entry = held[this_request()]
    local went = last_run()
    local is_admitted = entry and entry.verdict and entry.verdict.kind == "admitted"
    if not is_admitted or (went ~= "pod_full" and went ~= "not_started") then return nil, went end
    entry.runs = (entry.runs or 0) + 1
    if entry.runs > AGAIN_MAX then return nil, went end
    -- Until the call is answered the lease stays written down: whoever leaves now gives it back in the log phase.
    local answer, err = call(entry.service, "DELETE", "/v1/leases/" .. entry.id .. "?outcome=" .. went, "")
    if not answer or answer.status ~= 204 then
        ngx.log(ngx.WARN, "sluicegate: no second run: ", err or answer.body)
        return nil, went
    end
    entry.after, entry.may_be_held, entry.renew_at = entry.id, false, nil
    return settle(conf, entry)
end

--- The verdict of the current request, or nil. Any phase.
function M.verdict()
    local entry = held[this_request()]
    return entry and entry.verdict
end

--- The settings that need not be there, with their types.
local OPTIONAL = { token = "string", wait_ms = "number", hold_ms = "number", api = "string" }

local function one_of(name, value, first, second)
    if value ~= first and value ~= second then
        error("sluicegate: " .. name .. " = " .. value .. ": must be " .. first .. " or " .. second)
    end
end

--- Checks settings and fills in what is missing; unknown ones and bad values are errors.
function M.settings(given)
    local conf = {}
    for name, default in pairs(M.DEFAULTS) do conf[name] = default end
    for name, value in pairs(given or {}) do
        local known = OPTIONAL[name] or type(M.DEFAULTS[name])
        if known == "nil" then error("sluicegate: there is no setting " .. tostring(name)) end
        if type(value) ~= known then error("sluicegate: " .. name .. " must be a " .. known) end
        conf[name] = value
    end
    one_of("on_loss", conf.on_loss, "fail-closed", "fail-open")
    one_of("on_disconnect", conf.on_disconnect, "continues", "stops")
    if conf.wait_ms and conf.wait_ms >= conf.answer_ms then
        error("sluicegate: answer_ms must be longer than wait_ms, or waits are cut off")
    end
    return conf
end

--- A gateway gives its plugin the same table as long as the plugin's configuration is the same.
local checked = setmetatable({}, { __mode = "k" })

--- The settings within a plugin's configuration, which its gateway has checked by a schema and may have fields of its
-- own.
function M.settings_within(plugin_conf)
    local conf = checked[plugin_conf]
    if not conf then
        local own = {}
        for name in pairs(M.DEFAULTS) do own[name] = plugin_conf[name] end
        for name, kind in pairs(OPTIONAL) do
            -- A field that is not set may be a null of the gateway's database and not nil.
            if type(plugin_conf[name]) == kind then own[name] = plugin_conf[name] end
        end
        conf = M.settings(own)
        checked[plugin_conf] = conf
    end
    return conf
end

return M
