// SPDX-License-Identifier: MIT
/* A database in memory, by Debian's SQLite: inserts, an index, joins, groups, sorting, updates. */
#include "work.h"

#include <sqlite3.h>
#include <stdio.h>

static const char *const statements[] = {
	"CREATE TABLE part (id INTEGER PRIMARY KEY, kind INTEGER, name TEXT, price INTEGER)",
	"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000)"
	" INSERT INTO part SELECT i, i * 7919 % 101, printf('part %06d', i * 104729 % 999983), i * "
	"31 % 1000 FROM n",
	"CREATE INDEX by_kind ON part (kind, price)",
	"CREATE TABLE kind AS SELECT kind AS id, count(*) AS many, sum(price) AS total FROM part "
	"GROUP BY kind",
	"UPDATE part SET price = price + (SELECT many FROM kind WHERE kind.id = part.kind) WHERE "
	"id % 3 = 0",
	"DELETE FROM part WHERE name LIKE '%77%'",
};
static const char *const queries[] = {
	"SELECT kind, count(*), sum(price), min(name), max(name) FROM part GROUP BY kind ORDER BY "
	"3 DESC",
	"SELECT p.name, q.name, k.total FROM part p JOIN part q ON q.id = p.id * 2 JOIN kind k ON "
	"k.id = p.kind"
	" WHERE p.price < 400 ORDER BY q.name",
	"SELECT upper(substr(name, 6, 3)), count(*) FROM part GROUP BY 1 HAVING count(*) > 5 ORDER "
	"BY 2, 1",
};

static int row(void *h, int columns, char **text, char **names)
{
	uint64_t *sum = h;

	(void)names;
	for (int i = 0; i < columns; i++)
		*sum = digest(*sum, text[i] ? text[i] : "", text[i] ? strlen(text[i]) : 0);
	return 0;
}

uint64_t sqlite(void)
{
	uint64_t h = 1;
	sqlite3 *db;

	if (sqlite3_open(":memory:", &db) != SQLITE_OK)
		return 0;
	for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++) {
		if (sqlite3_exec(db, statements[i], NULL, NULL, NULL) != SQLITE_OK)
			h = 0;
	}
	for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
		if (sqlite3_exec(db, queries[i], row, &h, NULL) != SQLITE_OK)
			h = 0;
	}
	sqlite3_close(db);
	return h;
}
