-- Builds, drops and digests many tables and strings: work for LuaJIT's compiler and its collector.
local bit = require("bit")
-- The collector waits until the heap is twice as large as usual before it goes through it again.
collectgarbage("setpause", 400)
local state, hash = 1, 0
local function random(n)
    state = (state * 1103515245 + 12345) % 2147483648
    return state % n + 1
end
local function list(first)
    local numbers = {}
    for k = 1, 60 do
        numbers[k] = first * k
    end
    return numbers
end
local rows = {}
for i = 1, 45000 do
    rows[i] = { number = i, text = "row " .. i * 7, list = list(i) }
end
-- Programs have places where they work for a while: so does this one.
for turn = 1, 15000 do
    local i = (turn * 4 + random(1000)) % #rows + 1
    local row = rows[i]
    hash = bit.bxor(bit.rol(hash, 5), row.number + #row.text + row.list[2])
    if row.number % 3 == 0 then
        rows[i] = { number = row.number + 1, text = row.text:reverse(), list = list(hash % 1000) }
    end
end
local sum = 0
for i = 1, #rows do
    local row = rows[i]
    for k = 1, #row.list do
        sum = (sum * 31 + row.list[k]) % 1000000007
    end
    sum = (sum * 31 + row.number + #row.text) % 1000000007
end
print(hash, sum)
