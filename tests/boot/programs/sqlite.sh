# SPDX-License-Identifier: MIT
# A database in a file, with a journal and without.
for mode in delete wal; do
	rm -f base*
	sqlite3 base <<-SQL
	PRAGMA journal_mode=$mode;
	CREATE TABLE part (id INTEGER PRIMARY KEY, kind INTEGER, name TEXT, price REAL);
	BEGIN;
	WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
	 INSERT INTO part SELECT i, i * 7919 % 101, printf('part %06d', i * 104729 % 999983), i * 31 % 1000 / 7.0 FROM n;
	COMMIT;
	CREATE INDEX by_kind ON part (kind, price);
	CREATE TRIGGER changed AFTER UPDATE ON part BEGIN UPDATE part SET name = name || '!' WHERE id = new.id AND length(name) < 14; END;
	UPDATE part SET price = price * 1.5 WHERE kind IN (SELECT kind FROM part GROUP BY kind HAVING sum(price) % 2 > 1);
	DELETE FROM part WHERE name LIKE '%77%';
	SELECT kind, count(*), round(sum(price), 6), min(name), max(name) FROM part GROUP BY kind ORDER BY 3 DESC LIMIT 12;
	SELECT p.name, q.name FROM part p JOIN part q ON q.id = p.id * 2 WHERE p.price < 30 ORDER BY q.name LIMIT 8;
	SELECT count(*), sum(n) FROM (SELECT name, row_number() OVER (PARTITION BY kind ORDER BY price, id) AS n FROM part) WHERE n % 5 = 0;
	SELECT json_group_array(k) FROM (SELECT DISTINCT kind AS k FROM part WHERE name GLOB '*[13579]' ORDER BY k LIMIT 20);
	SELECT sum(length(hex(name))) , total(price) > 0 FROM part;
	VACUUM;
	PRAGMA integrity_check;
	SQL
	sqlite3 base .dump | sha256sum
done
