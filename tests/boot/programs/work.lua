-- SPDX-License-Identifier: MIT
-- Loops that become traces, side exits that become others, foreign memory, and code that is made up and dropped.
local ffi, bit = require("ffi"), require("bit")
local function mandelbrot(n)
  local count = 0
  for y = 0, n - 1 do
    for x = 0, n - 1 do
      local cr, ci, r, i = 2 * x / n - 1.5, 2 * y / n - 1, 0, 0
      for k = 1, 50 do
        r, i = r * r - i * i + cr, 2 * r * i + ci
        if r * r + i * i > 4 then break end
        count = count + 1
      end
    end
  end
  return count
end
print("mandelbrot", mandelbrot(150))
local v = ffi.new("uint32_t[?]", 4096)
local h = 1
for round = 1, 60 do
  for i = 0, 4095 do
    if i % 7 == round % 7 then v[i] = bit.bxor(v[i], h) elseif v[i] % 3 == 0 then v[i] = v[i] + i else v[i] = bit.rol(v[i], 5) end
    h = bit.tobit(h * 31 + v[i] % 65536)
  end
end
print("memory", bit.tohex(h))
local total = 0
for n = 1, 300 do
  local f = loadstring("local x = ... local s = " .. n .. " for i = 1, 400 do s = (s * " .. (n + 2) .. " + x) % 1000003 end return s")
  total = (total + f(n) + f(total)) % 1000003
end
print("made", total)
local words, seed = {}, 12345
for i = 1, 20000 do
  seed = (seed * 1103515245 + 12345) % 2147483648
  words[i] = string.format("%x", seed)
end
table.sort(words)
print("words", #table.concat(words), words[77], words[15000])
print("sum", string.format("%.12g", (function() local s = 0 for i = 1, 300000 do s = s + math.sin(i) / i end return s end)()))
