-- Builds, drops and digests many tables and strings: work for LuaJIT's compiler and its collector.
local bit = require("bit")
local state, hash = 1, 0
local function random(n)
    state = (state * 1103515245 + 12345) % 2147483648
    return state % n + 1
end
local rows = {}
for i = 1, 250000 do
    rows[i] = { number = i, text = "row " .. i * 7, list = { i, i + 1 } }
end
for _ = 1, 60000 do
    local i = random(#rows)
    local row = rows[i]
    hash = bit.bxor(bit.rol(hash, 5), row.number + #row.text + row.list[2])
    if row.number % 3 == 0 then
        rows[i] = { number = row.number + 1, text = row.text:reverse(), list = { #row.text, hash % 1000 } }
    end
end
local sum = 0
for i = 1, #rows do
    sum = (sum * 31 + rows[i].number + #rows[i].text) % 1000000007
end
print(hash, sum)
