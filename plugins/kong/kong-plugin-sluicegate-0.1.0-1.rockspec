-- luarocks make kong/kong-plugin-sluicegate-0.1.0-1.rockspec, in the folder `plugins` of a checkout
package = "kong-plugin-sluicegate"
version = "0.1.0-1"
source = { url = "." }
description = {
    summary = "Admission by Sluicegate: the units of a whole pool of pods, taken before a request is proxied",
    license = "Apache-2.0",
}
-- Kong brings lua-resty-core and lua-cjson; there is nothing else.
dependencies = { "lua >= 5.1" }
build = {
    type = "builtin",
    modules = {
        ["sluicegate"] = "nginx/sluicegate.lua",
        ["kong.plugins.sluicegate.handler"] = "kong/kong/plugins/sluicegate/handler.lua",
        ["kong.plugins.sluicegate.schema"] = "kong/kong/plugins/sluicegate/schema.lua",
    },
}
