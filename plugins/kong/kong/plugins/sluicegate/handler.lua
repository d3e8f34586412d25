--- Admission by Sluicegate for Kong: each request asks for the units of its api before it is proxied, waits for them
-- in Sluicegate's queue, runs on the pod that has them, and gives them back when it ends. The rules are in
-- `sluicegate.lua`.

local sluicegate = require "sluicegate"

local kong = kong

local Sluicegate = {
    -- After everything that may answer a request itself (authentication, rate limits, proxy-cache 100,
    -- request-termination 2): who needs no pod needs no units.
    PRIORITY = 1,
    VERSION = sluicegate.VERSION,
}

function Sluicegate.access(_, conf)
    local request = { method = kong.request.get_method(), path = kong.request.get_path() }
    local verdict = sluicegate.decide(sluicegate.settings_within(conf), request)
    if verdict.kind == "refused" then
        return kong.response.exit(verdict.status, verdict.body, verdict.headers)
    end
    if verdict.kind == "pass" then return end
    kong.service.set_target(verdict.host, verdict.port)
    -- A second try has the same pod, and after a time-out that pod may be at work still: one lease, one run.
    if kong.service.set_retries then kong.service.set_retries(0) end
    kong.response.add_header("Server-Timing", "admission;dur=" .. verdict.waited_ms)
end

function Sluicegate.log()
    sluicegate.done()
end

return Sluicegate
