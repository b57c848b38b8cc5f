// Files in and out as text: rows of CSV and JSON Lines, and the same rows with score columns added.
// No page and no network in here; what was in a file stays as it was, character by character.
// What a file is, and what its rows are, is decided as `assay score` does: tests/support/file_cases.json holds for both.

export const MOST_ROWS = 1000;
export const MOST_BYTES = 50_000_000;
export const DELIMITERS = { ",": "comma", ";": "semicolon", "\t": "tab", "|": "bar" };
const LINE_KEY = "_line"; // under which a line that is not a JSON object is kept
const JSON_LINES_NAME = /\.(jsonl|ndjson)(\.gz)?$/i;
const CSV_NAME = /\.(csv|tsv)(\.gz)?$/i;
const FOUND_DELIMITERS = [",", ";", "\t"]; // those that a header tells
const BLANK = /^[ \t\n\r\v\f]*$/; // not trim(), which takes more for white space than the command does
// What a file is by its first bytes, whatever its name; each byte a character.
const NOT_TEXT = [
  [/^(\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)/, "compressed with zstd"],
  [/^PAR1[\x00-\x1f\x80-\xff]/, "Parquet"],
  [/^(ARROW1\x00\x00|\xff\xff\xff\xff)/, "Arrow"],
  [/^PK(\x03\x04|\x05\x06)/, "a zip archive or a spreadsheet"],
  [/^\xd0\xcf\x11\xe0/, "an old spreadsheet"],
  [/^(BZh[1-9](1AY&SY|\x17\x72\x45\x38)|\xfd7zXZ\x00|\x04\x22\x4d\x18)/, "compressed"],
  [/^(Obj\x01|ORC[\x00-\x08]|SQLite format 3\x00|\x89HDF\r\n)/, "a table in a binary format"],
];

/** The text of a file's bytes, unpacked where they are gzip; throws an Error in words for what is not text. */
export async function decode(bytes) {
  const packed = new Uint8Array(bytes.slice(0, 3));
  const plain = packed[0] === 0x1f && packed[1] === 0x8b && packed[2] === 8 ? await unpack(bytes) : bytes;
  const first = String.fromCharCode(...new Uint8Array(plain.slice(0, 64)));
  const found = NOT_TEXT.find(([pattern]) => pattern.test(first));
  if (found) throw new Error(`The file is ${found[1]}, by its first bytes. This page takes text; assay score may read it.`);
  const utf16 = { "\xff\xfe": "utf-16le", "\xfe\xff": "utf-16be" }[first.slice(0, 2)];
  try {
    return new TextDecoder(utf16 ?? "utf-8", { fatal: true }).decode(plain); // takes the byte order mark away
  } catch {
    throw new Error("The file is not in UTF-8. Save it again in UTF-8.");
  }
}

async function unpack(bytes) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  const pieces = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read().catch(() => {
      throw new Error("The file begins as gzip and cannot be unpacked. Pack it again.");
    });
    if (done) return new Blob(pieces).arrayBuffer();
    pieces.push(value);
    size += value.length;
    if (size > MOST_BYTES) throw new Error("The file has more than 50 MB once unpacked. Use assay score for more.");
  }
}

/** What stands between the cells: a tab in .tsv, else what the header has most of outside quotes; null for JSON Lines. */
export function findDelimiter(name, text) {
  if (JSON_LINES_NAME.test(name)) return null;
  if (/\.tsv(\.gz)?$/i.test(name)) return "\t";
  const counts = Object.fromEntries(FOUND_DELIMITERS.map((one) => [one, 0]));
  let isQuoted = false;
  for (const character of text.trimStart()) {
    if (character === '"') isQuoted = !isQuoted;
    else if (!isQuoted && (character === "\n" || character === "\r")) break;
    else if (!isQuoted && character in counts) counts[character] += 1;
  }
  return FOUND_DELIMITERS.reduce((best, one) => (counts[one] > counts[best] ? one : best));
}

/** A file's rows: {kind, columns, rows, ...}, where rows[i] has `cells`, a value for each column, or an `error`. */
export function readTable(name, text, delimiter) {
  if (!JSON_LINES_NAME.test(name) && !CSV_NAME.test(name)) {
    throw new Error("The file's name ends in none of .csv, .tsv, .jsonl and .ndjson. Rename it by what it is.");
  }
  const table = JSON_LINES_NAME.test(name) ? readJsonLines(text) : readCsv(text, delimiter);
  if (table.rows.length === 0) throw new Error("The file has no rows.");
  if (table.rows.length > MOST_ROWS) {
    const count = table.rows.length.toLocaleString("en");
    throw new Error(`The file has ${count} rows; this page takes 1,000 at the most. Use assay score for more.`);
  }
  return table;
}

function readJsonLines(text) {
  const columns = new Set();
  const rows = [];
  for (const line of text.split(/\r\n|\n|\r/)) {
    if (BLANK.test(line)) continue;
    const value = objectOn(line);
    if (value !== null) Object.keys(value).forEach((column) => columns.add(column));
    rows.push({ line, value, error: value === null ? "not_json" : null });
  }
  const names = [...columns];
  if (rows.length && isOtherJson(rows)) {
    throw new Error("The file is JSON, but not JSON Lines, which has one object on each line.");
  }
  if (rows.length && names.length === 0) {
    throw new Error("No line of the file is a JSON object. JSON Lines has one on each line.");
  }
  for (const row of rows) row.cells = names.map((column) => (row.value && Object.hasOwn(row.value, column) ? row.value[column] : null));
  return { kind: "jsonl", columns: names, rows };
}

/** Whether the lines are one JSON array or object over many lines, or all of them arrays. */
function isOtherJson(rows) {
  const first = rows[0].line.trim();
  if (first.startsWith("[")) return goesOn(first) || rows.every(({ line }) => line.trim().startsWith("[") && isJson(line));
  return first.startsWith("{") && rows.every(({ value }) => value === null) && goesOn(first);
}

/** Whether a line is the beginning of a JSON value: with its brackets closed it would be one. */
function goesOn(line) {
  if (isJson(line)) return false;
  const open = [];
  for (const [token] of line.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{}]/g)) {
    if (token === "[" || token === "{") open.push(token);
    else if (token === "]" || token === "}") open.pop();
  }
  const closed = open.reverse().map((one) => (one === "[" ? "]" : "}"));
  const body = line.replace(/,$/, "").replace(/:$/, ":null");
  return isJson(body + closed.join(""));
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** The JSON object on a line; null where there is none. */
function objectOn(line) {
  try {
    const value = JSON.parse(line);
    return typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

/** RFC 4180: quotes doubled, newlines in quotes; a line ends in CRLF, LF, or CR alone. */
function readCsv(text, delimiter) {
  const records = [];
  let cells = [];
  let raw = 0; // where the record began
  let at = 0;
  let line = 1;
  const isEnd = (character) => character === delimiter || character === "\n" || character === "\r" || character === undefined;
  while (at < text.length) {
    let cell;
    if (text[at] === '"') {
      const opened = line;
      let end = at + 1;
      for (;;) {
        end = text.indexOf('"', end);
        if (end < 0) throw new Error(`The quote that opens on line ${opened} is never closed.`);
        if (text[end + 1] !== '"') break;
        end += 2;
      }
      const quoted = text.slice(at + 1, end);
      line += quoted.split(/\r\n|\n|\r/).length - 1;
      cell = quoted.replaceAll('""', '"');
      at = end + 1;
    } else {
      let end = at;
      while (!isEnd(text[end]) && text[end] !== '"') end += 1;
      cell = text.slice(at, end);
      at = end;
    }
    if (!isEnd(text[at])) {
      throw new Error(`Line ${line} has a quote inside of a cell. Quote the whole cell, and write the quotes in it twice.`);
    }
    cells.push(cell);
    if (text[at] === delimiter) {
      at += 1;
      if (at < text.length) continue;
      cells.push(""); // a file that ends in a delimiter ends in an empty cell
    }
    if (text.slice(raw, at) !== "") records.push({ cells, raw: text.slice(raw, at) });
    cells = [];
    if (text[at] === "\r" && text[at + 1] === "\n") at += 1;
    at += 1;
    line += 1;
    raw = at;
  }
  const header = records.shift();
  if (!header) throw new Error("The file is empty.");
  const twice = header.cells.find((name, index) => header.cells.indexOf(name) !== index);
  if (twice !== undefined) throw new Error(`The header names “${twice}” twice. Give each column a name of its own.`);
  for (const record of records) record.error = record.cells.length === header.cells.length ? null : "not_csv";
  return {
    kind: "csv",
    delimiter,
    newline: /\r\n|\n|\r/.exec(text)?.[0] ?? "\n",
    header: header.raw,
    columns: header.cells.map((cell, index) => cell || `column ${index + 1}`),
    rows: records,
  };
}

/** The texts of a row, or {error} with the code that a scored part would hold. */
export function textsOf(row, columns) {
  if (row.error) return { error: row.error };
  const texts = columns.map((column) => row.cells[column]);
  if (texts.some((text) => text === null)) return { error: "null" };
  if (texts.some((text) => typeof text !== "string")) return { error: "not_text" };
  if (texts.some((text) => !text.isWellFormed())) return { error: "not_utf8" };
  return { texts };
}

/** The file again, each row as it was with `scores[i]` (an object by column name) added; in UTF-8. */
export function writeTable(table, names, scores) {
  const added = freeNames(names, table.columns);
  if (table.kind === "jsonl") {
    const lines = table.rows.map((row, index) => {
      const fields = names.map((name, column) => `${JSON.stringify(added[column])}:${JSON.stringify(scores[index][name] ?? null)}`);
      if (row.value === null) return `{${[`"${LINE_KEY}":${JSON.stringify(row.line)}`, ...fields].join(",")}}`;
      const body = row.line.trim().slice(0, -1).trimEnd(); // without the closing brace: numbers and spacing stay
      return `${body}${body === "{" ? "" : ","}${fields.join(",")}}`;
    });
    return `${lines.join("\n")}\n`;
  }
  const { delimiter, newline } = table;
  const quote = (value) => {
    const cell = value === null || value === undefined ? "" : String(value);
    return /["\r\n]/.test(cell) || cell.includes(delimiter) ? `"${cell.replaceAll('"', '""')}"` : cell;
  };
  const lines = [[table.header, ...added.map(quote)].join(delimiter)];
  table.rows.forEach((row, index) => {
    lines.push([row.raw, ...names.map((name) => quote(scores[index][name]))].join(delimiter));
  });
  return lines.join(newline) + newline;
}

/** Names for the added columns that the file does not have yet. */
function freeNames(names, columns) {
  let prefix = "";
  while (names.some((name) => columns.includes(prefix + name))) prefix += "assay_";
  return names.map((name) => prefix + name);
}

/** Rows {texts} cut into consecutive requests within a count and a size in bytes, order kept. */
export function cut(rows, mostRows, mostBytes) {
  const encoder = new TextEncoder();
  const batches = [];
  let batch = [];
  let size = 0;
  for (const row of rows) {
    const cost = row.texts.reduce((sum, text) => sum + encoder.encode(JSON.stringify(text)).length + 1, 0);
    if (batch.length && (batch.length >= mostRows || size + cost > mostBytes)) {
      batches.push(batch);
      batch = [];
      size = 0;
    }
    batch.push(row);
    size += cost;
  }
  if (batch.length) batches.push(batch);
  return batches;
}
