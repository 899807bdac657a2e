// SPDX-License-Identifier: MIT
// What Ent Framework sends to PostgreSQL, without Ent: node ent.js fill | update N SECONDS | load N SECONDS
// One text of several statements for each batch, as it does: a transaction around writes, the row type told by
// a row of typed NULLs, rows sorted, the position in the log asked for at the end.
const { Client } = require("pg");

const ROWS = 20000;
const COLUMNS = "id, email, name, city, state, visits, points, score, active, credit, seen";
const CITIES = ["Aachen", "Bremen", "Chemnitz", "Dresden", "Essen", "Freiburg", "Göttingen", "Hannover"];
const POSITION = "SELECT pg_current_wal_insert_lsn() AS lsn, pg_is_in_recovery() AS replica;";

async function fill(db) {
  await db.query(`DROP TABLE IF EXISTS bench_user; CREATE TABLE bench_user (id bigint PRIMARY KEY,
    email varchar(190) NOT NULL, name varchar(80) NOT NULL, city varchar(60) NOT NULL, state text NOT NULL,
    visits bigint NOT NULL, points bigint NOT NULL, score double precision NOT NULL, active boolean NOT NULL,
    credit decimal(12, 2) NOT NULL, seen timestamp)`);
  for (let from = 1; from <= ROWS; from += 500) {
    const rows = [];
    for (let i = from; i < from + 500; i++) {
      rows.push(`(${i}, 'user${i}@example.org', 'Name Surname ${i}', '${CITIES[i % 8]}', 'active', ${i % 1000}, ${i * 7},
        ${i * 0.25}, ${i % 2 === 0}, ${i % 100000}.${i % 90 + 10}, '2026-01-05 06:07:08')`);
    }
    await db.query(`INSERT INTO bench_user (${COLUMNS}) VALUES ${rows.join(",")}`);
  }
  await db.query("VACUUM ANALYZE bench_user");
}

const write = (sql) => `BEGIN; SET LOCAL search_path TO public; ${sql}; COMMIT; ${POSITION}`;
const read = (sql) => `SET search_path TO public; ${sql}; ${POSITION}`;
const rowsOf = (answers) => answers.find((answer) => answer.command === "UPDATE" || answer.fields?.[0]?.name === "id").rows;

function updateText(users) {
  if (users.length === 1) {
    const user = users[0];
    return write(`UPDATE bench_user SET visits='${user.visits + 1}' WHERE id='${user.id}'
      AND ROW(visits) IS NOT DISTINCT FROM ROW('${user.visits}'::bigint) RETURNING id AS _key`);
  }
  const rows = users.map((user) => `('${user.id}','${user.visits + 1}','${user.visits}','${user.id}:x')`);
  return write(`WITH rows(id, visits, "$cas.visits", _key) AS (VALUES
    ((NULL::bench_user).id, (NULL::bench_user).visits, (NULL::bench_user).visits, 'k0'), ${rows.join(",")})
    UPDATE bench_user SET visits=rows.visits FROM rows WHERE bench_user.id=rows.id
    AND ROW(bench_user.visits) IS NOT DISTINCT FROM ROW(rows."$cas.visits") RETURNING rows._key`);
}

async function update(db, n, users) {
  const made = new Set(rowsOf(await db.query(updateText(users))).map((row) => row._key));
  if (made.size !== n) throw new Error(`${made.size} of ${n} were updated`);
  for (const user of users) user.visits++;
}

async function load(db, n, ids) {
  const rows = rowsOf(await db.query(read(`SELECT ${COLUMNS} FROM bench_user WHERE id=ANY('{${ids.join(",")}}')`)));
  const found = new Map(rows.map((row) => [row.id, row]));
  if (found.size !== n) throw new Error(`${found.size} of ${n} were found`);
}

async function main() {
  const [what, n, seconds] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
  const db = new Client({ host: process.env.BENCH_PG, user: "bench", database: "postgres" });
  await db.connect();
  if (what === "fill") {
    await fill(db);
    console.log("ops=1 seconds=1");
    return db.end();
  }
  const known = new Map((await db.query("SELECT id, visits FROM bench_user")).rows
    .map((row) => [Number(row.id), { id: Number(row.id), visits: Number(row.visits) }]));
  let ops = 0, warm = false, started = performance.now();
  for (let at = 0; ; at++) {
    const ids = [];
    for (let i = 1; i <= n; i++) ids.push((at % Math.floor(ROWS / n)) * n + i);
    if (what === "update") await update(db, n, ids.map((id) => known.get(id)));
    else await load(db, n, ids);
    ops += n;
    const elapsed = (performance.now() - started) / 1000;
    if (!warm && elapsed >= seconds / 10) [ops, warm, started] = [0, true, performance.now()];
    else if (warm && elapsed >= seconds) {
      console.log(`ops=${ops} seconds=${elapsed}`);
      return db.end();
    }
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
