--- Admission by Sluicegate for APISIX: each request asks for the units of its api before it is proxied, waits for them
-- in Sluicegate's queue, runs on the pod that has them, and gives them back when it ends. The rules are in
-- `sluicegate.lua`.

local core = require "apisix.core"
local upstream = require "apisix.upstream"
local sluicegate = require "sluicegate"

local DEFAULTS = sluicegate.DEFAULTS

local function milliseconds(default)
    return { type = "integer", minimum = 1, maximum = 600000, default = default }
end

local schema = {
    type = "object",
    properties = {
        decisions = { type = "string", pattern = "^(http://[^/]+|unix:/.+)$", default = DEFAULTS.decisions },
        token = { type = "string", minLength = 1 },
        api = { type = "string", minLength = 1 },
        on_loss = { type = "string", enum = { "fail-closed", "fail-open" }, default = "fail-closed" },
        on_disconnect = { type = "string", enum = { "continues", "stops" }, default = DEFAULTS.on_disconnect },
        wait_ms = { type = "integer", minimum = 0, maximum = 600000 },
        hold_ms = milliseconds(nil),
        connect_ms = milliseconds(DEFAULTS.connect_ms),
        answer_ms = milliseconds(DEFAULTS.answer_ms),
        lease_max_s = { type = "integer", minimum = 1, default = DEFAULTS.lease_max_s },
        pool = { type = "integer", minimum = 1, default = DEFAULTS.pool },
    },
    encrypt_fields = { "token" },
}

local M = {
    version = 0.1,
    -- After everything that may answer a request itself, and after traffic-split (966), which chooses an upstream too:
    -- who needs no pod needs no units, and the pod of the lease is the last word.
    priority = 490,
    name = "sluicegate",
    schema = schema,
}

function M.check_schema(conf)
    local ok, err = core.schema.check(schema, conf)
    if not ok then return false, err end
    if conf.wait_ms and conf.answer_ms and conf.wait_ms >= conf.answer_ms then
        return false, "answer_ms must be longer than wait_ms, or waits are cut off"
    end
    return true
end

--- The upstream that the route would have without us.
local function own_upstream(ctx)
    local route = ctx.matched_route and ctx.matched_route.value or {}
    local id = ctx.upstream_id or route.upstream_id
    return id and upstream.get_by_id and upstream.get_by_id(id) or route.upstream or {}
end

--- An upstream of one node, the lease's pod; the rest as the route's own says.
local function run_on(ctx, verdict)
    local own = own_upstream(ctx)
    local conf = {
        type = "roundrobin",
        nodes = { { host = verdict.host, port = verdict.port, weight = 1, priority = 0 } },
        scheme = own.scheme or verdict.scheme,
        timeout = own.timeout,
        keepalive_pool = own.keepalive_pool,
        pass_host = own.pass_host or "pass",
        upstream_host = own.upstream_host,
        tls = own.tls,
        -- A second try has the same pod, and after a time-out that pod may be at work still: one lease, one run.
        retries = 0,
        parent = ctx.matched_route,
    }
    local key = "sluicegate#" .. conf.scheme .. "#" .. verdict.host .. ":" .. verdict.port
    upstream.set(ctx, key, ctx.conf_version, conf)
    if conf.scheme ~= "http" then upstream.set_scheme(ctx, conf) end
end

function M.access(conf, ctx)
    local request = { method = ctx.var.request_method, path = ctx.var.request_uri }
    local verdict = sluicegate.decide(sluicegate.settings_within(conf), request)
    if verdict.kind == "refused" then
        for name, value in pairs(verdict.headers) do
            core.response.set_header(name, value)
        end
        return verdict.status, verdict.body
    end
    if verdict.kind == "pass" then return end
    run_on(ctx, verdict)
    core.response.add_header("Server-Timing", "admission;dur=" .. verdict.waited_ms)
end

function M.log()
    sluicegate.done()
end

return M
