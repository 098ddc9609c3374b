-- Whether the caller knows the present epoch, and whether anything may be granted in it.
local epoch = sub(ARGV[1], 1, 16)
local known = call('GET', KEYS[1]) == ARGV[1]
local in_grace = not known or now < tonumber(sub(ARGV[1], 18, 33))

local LARGEST_TOKEN = 9007199254740991

-- The tokens of the next grant: the last, as text, and how many. Nothing once they are used up.
local function next_tokens(counter, written)
  local first, tokens = counter + 1, 1
  if written == epoch then
    tokens = math.max(1, math.min(64, now - counter))
  elseif first < now then
    first = now
  end
  if first <= LARGEST_TOKEN - tokens + 1 then
    return format('%d', first + tokens - 1), tokens
  end
end
