--- Sluicegate's door in plain nginx: what nginx.conf calls. The rules are in `sluicegate.lua`.

local sluicegate = require "sluicegate"

local ngx = ngx
local pairs = pairs

local M = {}

local nginx_conf

--- For `init_by_lua`: the settings of this nginx.
function M.setup(given)
    nginx_conf = sluicegate.settings(given)
end

local function answer(verdict)
    ngx.status = verdict.status
    for name, value in pairs(verdict.headers) do ngx.header[name] = value end
    ngx.header["Content-Length"] = #verdict.body
    ngx.print(verdict.body)
    return ngx.exit(ngx.HTTP_OK)
end

local function go_on(verdict)
    if verdict.kind == "refused" then return answer(verdict) end
    if verdict.kind == "admitted" then ngx.header["Server-Timing"] = "admission;dur=" .. verdict.waited_ms end
end

--- For `access_by_lua`. Returns for a request that may run, else answers it. `api` names the api; without it the
--- configuration of Sluicegate finds it by method and path.
function M.access(api)
    if ngx.is_subrequest then return end
    local request = { api = api, method = ngx.req.get_method(), path = ngx.var.request_uri }
    return go_on(sluicegate.decide(nginx_conf, request))
end

--- For `access_by_lua` of the location that `error_page 429 502` leads to. Returns for a request that may run again,
--- else answers it.
function M.again()
    local verdict, went = sluicegate.decide_again(nginx_conf)
    if verdict then return go_on(verdict) end
    if went == "pod_full" then
        return answer(sluicegate.refusal(429, went, "The pod refused", "Its own lock had no room, to the end."))
    end
    return answer(sluicegate.problem(502, "pod_failed", "The pod failed", "It could not be reached, or broke off."))
end

--- nginx's NGX_BUSY: no peer, so 502; NGX_ERROR would be a 500.
local NO_PEER = -3

--- For `balancer_by_lua`: the pod of the lease, or nothing, and nginx takes one of the upstream's own servers.
function M.balance()
    local balancer = require "ngx.balancer"
    local verdict = sluicegate.verdict()
    if not verdict or verdict.kind ~= "admitted" then return end
    -- nginx tries again, because of its settings or because a kept connection broke. On another pod the request would
    -- have no lease, and this one may be at work on it: one lease, one run.
    if balancer.get_last_failure() then return ngx.exit(NO_PEER) end
    local ok, err = balancer.set_current_peer(verdict.host, verdict.port)
    if not ok then
        ngx.log(ngx.ERR, "sluicegate: pod ", verdict.pod, " at ", verdict.host, ": ", err,
            " (write addresses, not names, in `pods`)")
        return ngx.exit(NO_PEER)
    end
end

--- For `log_by_lua`.
M.log = sluicegate.done

return M
