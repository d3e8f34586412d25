local typedefs = require "kong.db.schema.typedefs"

local DEFAULTS = require("sluicegate").DEFAULTS

local function milliseconds(default, description)
    return { type = "integer", default = default, between = { 1, 600000 }, description = description }
end

return {
    name = "sluicegate",
    fields = {
        { protocols = typedefs.protocols_http },
        { config = {
            type = "record",
            fields = {
                { decisions = { type = "string", required = true, default = DEFAULTS.decisions,
                    description = "Sluicegate's decision service: http://HOST:PORT, or unix:/PATH." } },
                { token = { type = "string", referenceable = true, encrypted = true,
                    description = "The service's `decisions.token`." } },
                { api = { type = "string",
                    description = "Name of the api; without it Sluicegate finds it by method and path." } },
                { on_loss = { type = "string", required = true, default = "fail-closed",
                    one_of = { "fail-closed", "fail-open" },
                    description = "What happens to requests while the service does not answer." } },
                { on_disconnect = { type = "string", required = true, default = DEFAULTS.on_disconnect,
                    one_of = { "continues", "stops" },
                    description = "What the pods do when their client is gone, as in Sluicegate's `pods`." } },
                { wait_ms = { type = "integer", between = { 0, 600000 },
                    description = "Longest wait for room, in place of the api's." } },
                { hold_ms = milliseconds(nil, "How long a lease lives unrenewed, in place of the api's max_hold.") },
                { connect_ms = milliseconds(DEFAULTS.connect_ms, "Longest time to connect to the service.") },
                { answer_ms = milliseconds(DEFAULTS.answer_ms,
                    "Longest time for its answer: longer than the longest wait of any api.") },
                { lease_max_s = { type = "integer", default = DEFAULTS.lease_max_s, gt = 0,
                    description = "A lease older than this is renewed no more." } },
                { pool = { type = "integer", default = DEFAULTS.pool, gt = 0,
                    description = "Idle connections to the service kept by each worker." } },
            },
        } },
    },
}
