--- As much of Kong as its plugin of ours touches, for tests; docs/kong.md says on what the likeness rests.
--
-- Phases: access by descending PRIORITY, an exit ends it; log for every plugin of the request, whatever ended it.
-- The chosen target and the retries live in `ngx.ctx.balancer_data`, and the balancer phase reads them there.

local balancer = require "ngx.balancer"

local M = {}
local plugins = {}

--- `service.retries` of Kong's admin API, its default.
local RETRIES = 5

local function check(field, value, name)
    local kind = type(value)
    local is_whole = kind == "number" and value % 1 == 0
    local fits = (field.type == "string" and kind == "string") or (field.type == "integer" and is_whole)
    assert(fits, name .. " must be a " .. field.type)
    if field.between then
        assert(value >= field.between[1] and value <= field.between[2], name .. " is out of bounds")
    end
    if field.gt then assert(value > field.gt, name .. " is too small") end
    if field.one_of then
        local known = false
        for _, one in ipairs(field.one_of) do known = known or one == value end
        assert(known, name .. " is none of those allowed")
    end
end

--- What the admin API makes of a plugin's configuration: unknown fields refused, defaults filled in.
local function checked(schema, given)
    local record
    for _, field in ipairs(schema.fields) do record = record or field.config end
    assert(record.type == "record")
    local conf, known = {}, {}
    for _, entry in ipairs(record.fields) do
        local name, field = next(entry)
        known[name] = true
        conf[name] = given[name]
        if conf[name] == nil then conf[name] = field.default end
        if conf[name] ~= nil then check(field, conf[name], name) end
        assert(conf[name] ~= nil or not field.required, name .. " is required")
    end
    for name in pairs(given) do assert(known[name], "unknown field " .. name) end
    return conf
end

local function exit(status, body, headers)
    ngx.status = status
    for name, value in pairs(headers or {}) do ngx.header[name] = value end
    if body then
        ngx.header["Content-Length"] = #body
        ngx.print(body)
    end
    return ngx.exit(ngx.HTTP_OK)
end

local function add_header(name, value)
    local had = ngx.header[name]
    ngx.header[name] = had and { had, value } or value
end

function M.install()
    rawset(_G, "kong", {
        request = { get_method = ngx.req.get_method, get_path = function() return ngx.var.uri end },
        response = { exit = exit, add_header = add_header },
        service = {
            set_target = function(host, port)
                assert(type(host) == "string" and type(port) == "number" and port % 1 == 0)
                local data = ngx.ctx.balancer_data
                data.host, data.port = host, port
            end,
            set_retries = function(retries) ngx.ctx.balancer_data.retries = retries end,
        },
    })
    package.loaded["kong.db.schema.typedefs"] = { protocols_http = { type = "set" } }
end

--- A plugin by its name, as Kong finds it, with a configuration.
function M.load(name, given)
    local handler = require("kong.plugins." .. name .. ".handler")
    local schema = require("kong.plugins." .. name .. ".schema")
    assert(schema.name == name and type(handler.PRIORITY) == "number" and type(handler.VERSION) == "string")
    M.add(handler, checked(schema, given))
end

function M.add(handler, conf)
    plugins[#plugins + 1] = { handler = handler, conf = conf }
    table.sort(plugins, function(one, other) return one.handler.PRIORITY > other.handler.PRIORITY end)
end

function M.access()
    ngx.ctx.balancer_data = { retries = RETRIES }
    for _, plugin in ipairs(plugins) do
        if plugin.handler.access then plugin.handler:access(plugin.conf) end
    end
end

--- A target that a plugin chose is the same in each try.
function M.balancer()
    local data = ngx.ctx.balancer_data
    if not data.host then return end
    data.tried = (data.tried or 0) + 1
    if data.tried == 1 and data.retries > 0 then balancer.set_more_tries(data.retries) end
    assert(balancer.set_current_peer(data.host, data.port))
end

function M.log()
    for _, plugin in ipairs(plugins) do
        if plugin.handler.log then plugin.handler:log(plugin.conf) end
    end
end

return M
