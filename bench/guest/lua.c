// SPDX-License-Identifier: MIT
/* Debian's Lua, an interpreter of bytecode: recursion, tables, strings, closures, sorting. */
#include "work.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

static const char script[] =
	"local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end\n"
	"local sum = fib(23)\n"
	"local queens = 0\n"
	"local function place(row, columns, up, down)\n"
	"  if row > 7 then queens = queens + 1 return end\n"
	"  for c = 1, 7 do\n"
	"    if not columns[c] and not up[row + c] and not down[row - c] then\n"
	"      columns[c], up[row + c], down[row - c] = true, true, true\n"
	"      place(row + 1, columns, up, down)\n"
	"      columns[c], up[row + c], down[row - c] = nil, nil, nil\n"
	"    end\n"
	"  end\n"
	"end\n"
	"place(1, {}, {}, {})\n"
	"local words, seed = {}, 12345\n"
	"for i = 1, 6000 do\n"
	"  seed = (seed * 1103515245 + 12345) % 2147483648\n"
	"  words[i] = string.format('%x-%d', seed, i % 13)\n"
	"end\n"
	"table.sort(words, function(a, b) return a < b end)\n"
	"local text = table.concat(words, ' ')\n"
	"local marked, times = text:gsub('(%x+)-(%d+)', function(a, b) return b .. a end)\n"
	"for i = 1, #marked, 7 do sum = (sum * 31 + marked:byte(i)) % 4294967296 end\n"
	"return sum * 1000 + queens + times\n";

uint64_t lua(void)
{
	lua_State *l = luaL_newstate();
	uint64_t result = 0;

	if (!l)
		return 0;
	luaL_requiref(l, "_G", luaopen_base, 1);
	luaL_requiref(l, "string", luaopen_string, 1);
	luaL_requiref(l, "table", luaopen_table, 1);
	lua_settop(l, 0);
	if (luaL_dostring(l, script) == LUA_OK)
		result = (uint64_t)lua_tointeger(l, 1);
	lua_close(l);
	return result;
}
