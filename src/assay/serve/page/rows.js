// Files in and out as text: rows of CSV and JSON Lines, and the same rows with score columns added.
// No page and no network in here; what was in a file stays as it was, character by character.

export const MOST_ROWS = 1000;
export const MOST_BYTES = 50_000_000;

/** The text of a file's bytes; throws an Error in words for what is no UTF-8 (or UTF-16 with its mark). */
export function decode(bytes) {
  const start = [...new Uint8Array(bytes.slice(0, 2))];
  const utf16 = { "255,254": "utf-16le", "254,255": "utf-16be" }[`${start}`];
  try {
    return new TextDecoder(utf16 ?? "utf-8", { fatal: true }).decode(bytes); // takes the byte order mark away
  } catch {
    throw new Error("The file is not in UTF-8. Save it again in UTF-8.");
  }
}

/** A file's rows: {kind, columns, rows, ...}, where rows[i].cells holds a value for each column. */
export function readTable(name, text) {
  const table = isJsonLines(name, text) ? readJsonLines(text) : readCsv(text);
  if (table.rows.length === 0) throw new Error("The file has no rows.");
  if (table.rows.length > MOST_ROWS) {
    const count = table.rows.length.toLocaleString("en");
    throw new Error(`The file has ${count} rows; this page takes 1,000 at the most. Use assay score for more.`);
  }
  return table;
}

function isJsonLines(name, text) {
  if (/\.(jsonl|ndjson|json)$/i.test(name)) return true;
  return !/\.(csv|tsv|txt)$/i.test(name) && text.trimStart().startsWith("{");
}

function readJsonLines(text) {
  const columns = new Set();
  const rows = [];
  text.split(/\r?\n/).forEach((line, index) => {
    if (line.trim() === "") return;
    let value;
    try {
      value = JSON.parse(line);
    } catch {
      throw new Error(`Line ${index + 1} is not JSON. JSON Lines has one object on each line.`);
    }
    if (value === null || typeof value !== "object" || Array.isArray(value)) {
      throw new Error(`Line ${index + 1} is no JSON object. JSON Lines has one object on each line.`);
    }
    Object.keys(value).forEach((column) => columns.add(column));
    rows.push({ line: line.trim(), value });
  });
  const names = [...columns];
  for (const row of rows) row.cells = names.map((column) => (Object.hasOwn(row.value, column) ? row.value[column] : null));
  return { kind: "jsonl", columns: names, rows };
}

/** RFC 4180, and what spreadsheets make of it: quotes doubled, newlines in quotes, comma, semicolon or tab. */
function readCsv(text) {
  const delimiter = findDelimiter(text);
  const records = [];
  let cells = [];
  let raw = 0; // where the record began
  let at = 0;
  let line = 1;
  let began = 1;
  const endRecord = (end) => {
    if (cells.length > 1 || cells[0] !== "" || text.slice(raw, end) !== "") {
      records.push({ cells, raw: text.slice(raw, end), line: began });
    }
    cells = [];
  };
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
      line += quoted.split("\n").length - 1;
      cell = quoted.replaceAll('""', '"');
      at = end + 1;
      if (at < text.length && text[at] !== delimiter && text[at] !== "\n" && text[at] !== "\r") {
        throw new Error(`Line ${line} has text after a closing quote. A quote inside quotes is written twice.`);
      }
    } else {
      let end = at;
      while (end < text.length && text[end] !== delimiter && text[end] !== "\n" && text[end] !== "\r") end += 1;
      cell = text.slice(at, end);
      at = end;
    }
    cells.push(cell);
    if (text[at] === delimiter) {
      at += 1;
      if (at < text.length) continue;
      cells.push(""); // a file that ends in a delimiter ends in an empty cell
    }
    endRecord(at);
    if (text[at] === "\r") at += 1;
    if (text[at] === "\n") at += 1;
    line += 1;
    raw = at;
    began = line;
  }
  const header = records.shift();
  if (!header) throw new Error("The file is empty.");
  const width = header.cells.length;
  const wrong = records.find((record) => record.cells.length !== width);
  if (wrong) {
    throw new Error(`Line ${wrong.line} has ${wrong.cells.length} cells and the header has ${width}. Each row needs as many.`);
  }
  return {
    kind: "csv",
    delimiter,
    newline: text.includes("\r\n") ? "\r\n" : "\n",
    header: header.raw,
    columns: header.cells.map((cell, index) => cell.trim() || `column ${index + 1}`),
    rows: records,
  };
}

/** Comma, semicolon or tab: whichever the header has most of, outside quotes. */
function findDelimiter(text) {
  const counts = { ",": 0, ";": 0, "\t": 0 };
  let quoted = false;
  for (const character of text) {
    if (character === '"') quoted = !quoted;
    else if (!quoted && character === "\n") break;
    else if (!quoted && character in counts) counts[character] += 1;
  }
  return Object.keys(counts).reduce((best, one) => (counts[one] > counts[best] ? one : best));
}

/** The texts of a row, or {error} with the code that a scored part would hold. */
export function textsOf(row, columns) {
  const texts = columns.map((column) => row.cells[column]);
  if (texts.some((text) => text === null)) return { error: "null" };
  if (texts.some((text) => typeof text !== "string")) return { error: "not_text" };
  return { texts };
}

/** The file again, each row as it was with `scores[i]` (an object by column name) added; in UTF-8. */
export function writeTable(table, names, scores) {
  const added = freeNames(names, table.columns);
  if (table.kind === "jsonl") {
    const lines = table.rows.map((row, index) => {
      const fields = names.map((name, column) => `${JSON.stringify(added[column])}:${JSON.stringify(scores[index][name] ?? null)}`);
      const body = row.line.slice(0, -1).trimEnd(); // without the closing brace: numbers and spacing stay
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
