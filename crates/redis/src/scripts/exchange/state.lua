-- Part of exchange.lua: what is read once and written once.

function F.put(field, value)
  X.puts[field] = value
  X.dels[field] = nil
end

function F.del(field)
  X.puts[field] = nil
  X.dels[field] = true
end

function F.get(field)
  if X.puts[field] then return X.puts[field] end
  if X.dels[field] then return false end
  return call('HGET', X.S, field)
end

-- A gate's record, or false.
function F.rec(id)
  local one = X.recs[id]
  if one == nil then
    local blob = call('HGET', X.S, 'g:' .. id)
    one = blob and unpack_(blob) or false
    X.recs[id] = one
  end
  return one
end

function F.rec_changed(one)
  one.changed = true
end

-- What an epoch holds: account -> units, none of them 0.
function F.held_by(epoch)
  local one = X.holds[epoch]
  if one == nil then
    local blob = F.get(fmt('h:%d', epoch))
    one = { units = blob and unpack_(blob) or {} }
    X.holds[epoch] = one
  end
  return one
end

-- { limit, held, outside } of an account, or false.
function F.balance(account)
  local one = X.bals[account]
  if one == nil then
    local text = call('HGET', X.S, 'b:' .. account)
    one = false
    if text then
      local limit, held, outside = string.match(text, '^(%d+) (%d+) (%d+)$')
      one = { num(limit), num(held), num(outside) }
    end
    X.bals[account] = one
  end
  return one
end

function F.all_accounts()
  if not X.accounts then
    local blob = call('HGET', X.S, 'B')
    X.accounts = blob and unpack_(blob) or {}
  end
  return X.accounts
end

function F.make_balance(account)
  local one = { 0, 0, 0 }
  X.bals[account] = one
  F.all_accounts()[account] = 1
  X.accounts_changed = true
  return one
end

function F.sorted(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end
