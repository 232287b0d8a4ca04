-- A database in memory: a table of rows with an index, a join, updates, deletes, and digests that depend on every row.
CREATE TABLE row(id INTEGER PRIMARY KEY, word TEXT, number INTEGER, body BLOB);
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 399999)
INSERT INTO row SELECT i, 'word ' || (i * 7919 % 100003), i * 2654435761 % 4294967296, printf('%080d', i * i % 1000007) FROM n;
CREATE INDEX row_word ON row(word, number);
UPDATE row SET body = body || ' changed' WHERE number % 11 = 0;
DELETE FROM row WHERE number % 13 = 0;
INSERT INTO row SELECT id + 1000000, word, number + 1, body FROM row WHERE number % 5 = 0;
SELECT count(*), sum(number), sum(length(body)), count(DISTINCT word) FROM row;
SELECT word, count(*), min(number), max(number) FROM row GROUP BY word ORDER BY count(*) DESC, word LIMIT 5;
SELECT count(*), sum(a.number % 1009 * b.number % 1013) FROM row a JOIN row b ON a.word = b.word AND a.id < b.id;
PRAGMA integrity_check;
