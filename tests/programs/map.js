// A large Map of objects: built, sorted, filtered and digested.
const { createHash } = require("node:crypto");
const table = new Map();
let state = 12345;
for (let i = 0; i < 350000; i++) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  table.set(`key ${state}`, { order: i, value: state, text: `row ${i}`.repeat(2), list: [i, state % 97] });
}
const sorted = new Map([...table].sort(([, a], [, b]) => a.value - b.value || a.order - b.order));
for (const [key, row] of sorted) if (row.value % 5 === 0) sorted.delete(key);
const digest = createHash("sha256");
for (const [key, row] of sorted) digest.update(`${key}${row.order}${row.text}${row.list}`);
const groups = new Map();
for (const row of sorted.values()) groups.set(row.list[1], (groups.get(row.list[1]) ?? 0) + row.order);
console.log(table.size, sorted.size, digest.digest("hex"));
console.log([...groups].sort(([a], [b]) => a - b).map(([k, v]) => `${k}=${v}`).join(" "));
