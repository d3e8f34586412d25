-- luacheck --config plugins/.luacheckrc plugins crates/cli/tests/doors/shims
std = "ngx_lua"
max_line_length = 120
read_globals = { "kong" }
