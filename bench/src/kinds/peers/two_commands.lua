-- The obvious way, as well as it can be made in nginx: one script in Redis takes units on the narrowest pod that has
-- them, one gives them back. Connections are kept; nobody waits.
return function(port, take, give, pods)
  local function call(sha, ...)
    local sock = ngx.socket.tcp()
    sock:settimeouts(1000, 1000, 1000)
    local ok, why = sock:connect("127.0.0.1", port, { pool = "redis", pool_size = 512 })
    if not ok then return nil, why end
    local words = { "EVALSHA", sha, "1", "free", ... }
    local text = { "*" .. #words .. "\r\n" }
    for _, word in ipairs(words) do
      word = tostring(word)
      text[#text + 1] = "$" .. #word .. "\r\n" .. word .. "\r\n"
    end
    sock:send(text)
    local line
    line, why = sock:receive()
    if not line then return nil, why end
    sock:setkeepalive(60000, 512)
    return tonumber(line:match("^:(-?%d+)"))
  end

  -- Cosockets are forbidden in the log phase, but not in a timer.
  local function give_back(_, weight, pod)
    call(give, weight, pod)
  end

  local way = {}

  function way.access()
    local weight = tonumber(ngx.var.uri:match("^/w/(%d+)")) or 1
    local pod = call(take, weight)
    if not pod then return ngx.exit(503) end
    if pod < 0 then
      ngx.header["Retry-After"] = "1"
      return ngx.exit(429)
    end
    ngx.ctx.lease = { weight, pod }
  end

  function way.balance()
    require("ngx.balancer").set_current_peer("127.0.0.1", pods[ngx.ctx.lease[2] + 1])
  end

  function way.log()
    local lease = ngx.ctx.lease
    if lease then ngx.timer.at(0, give_back, lease[1], lease[2]) end
  end

  return way
end
