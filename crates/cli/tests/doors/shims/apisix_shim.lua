--- As much of APISIX as its plugin of ours touches, for tests; docs/apisix.md says on what the likeness rests.
--
-- Phases: access by descending priority, a returned code ends it; then the upstream that a plugin has set, else the
-- route's own; then the balancer; log for every plugin of the route, whatever ended the request.

local balancer = require "ngx.balancer"
local cjson = require "cjson.safe"

local M = {}
local plugins = {}

local KINDS = { string = "string", integer = "number" }

local function check_property(property, value, name)
    if type(value) ~= KINDS[property.type] then return name .. " is no " .. property.type end
    if property.type == "integer" and value % 1 ~= 0 then return name .. " is not whole" end
    if property.minimum and value < property.minimum then return name .. " is too small" end
    if property.maximum and value > property.maximum then return name .. " is too large" end
    if property.minLength and #value < property.minLength then return name .. " is too short" end
    if property.pattern and not ngx.re.find(value, property.pattern) then return name .. " is not of the pattern" end
    for _, one in ipairs(property.enum or {}) do
        if one == value then return nil end
    end
    return property.enum and name .. " is none of those allowed" or nil
end

--- Like APISIX's JSON Schema check it fills in defaults, and knows no fields to be wrong unless the schema says so.
local function check_schema(schema, conf)
    for name, property in pairs(schema.properties) do
        if conf[name] == nil then conf[name] = property.default end
        local fault = conf[name] ~= nil and check_property(property, conf[name], name)
        if fault then return false, fault end
    end
    return true
end

local function add_header(name, value)
    local had = ngx.header[name]
    ngx.header[name] = had and { had, value } or value
end

function M.install()
    package.loaded["apisix.core"] = {
        schema = { check = check_schema },
        response = { set_header = function(name, value) ngx.header[name] = value end, add_header = add_header },
    }
    package.loaded["apisix.upstream"] = {
        set = function(ctx, key, version, conf)
            assert(ctx and key and version and conf)
            ctx.upstream_key, ctx.upstream_version, ctx.upstream_conf = key, version, conf
        end,
        set_scheme = function(ctx, conf) ctx.upstream_scheme = conf.scheme end,
    }
end

--- A plugin by its name, as APISIX finds it, with a configuration.
function M.load(name, conf)
    local plugin = require("apisix.plugins." .. name)
    assert(plugin.name == name and type(plugin.priority) == "number" and type(plugin.version) == "number")
    assert(plugin.check_schema(conf))
    M.add(plugin, conf)
end

function M.add(plugin, conf)
    plugins[#plugins + 1] = { plugin = plugin, conf = conf }
    table.sort(plugins, function(one, other) return one.plugin.priority > other.plugin.priority end)
end

local function exit(code, body)
    ngx.status = code
    if type(body) == "table" then body = cjson.encode(body) end
    if body then ngx.print(body) end
    return ngx.exit(ngx.HTTP_OK)
end

local function new_ctx()
    local own = { type = "roundrobin", nodes = {} }
    local route = { value = { id = "1", upstream = own } }
    local ctx = { var = setmetatable({}, { __index = function(_, name) return ngx.var[name] end }),
        matched_route = route, conf_version = 1 }
    ngx.ctx.api_ctx = ctx
    return ctx
end

function M.access()
    local ctx = new_ctx()
    for _, one in ipairs(plugins) do
        if one.plugin.access then
            local code, body = one.plugin.access(one.conf, ctx)
            if code then return exit(code, body) end
        end
    end
    local conf = ctx.upstream_conf
    ctx.picked_server = conf and conf.nodes[1]
end

function M.balancer()
    local ctx = ngx.ctx.api_ctx
    local conf, server = ctx.upstream_conf, ctx.picked_server
    if not server then return end
    local retries = conf.retries or #conf.nodes - 1
    if not ctx.tried and retries > 0 then balancer.set_more_tries(retries) end
    ctx.tried = true
    assert(balancer.set_current_peer(server.host, server.port))
end

function M.log()
    for _, one in ipairs(plugins) do
        if one.plugin.log then one.plugin.log(one.conf, ngx.ctx.api_ctx) end
    end
end

return M
