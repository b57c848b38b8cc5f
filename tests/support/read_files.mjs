// Reads the cases on stdin with the page's own rows.js, given by its path, and writes what it makes of them.
import { readFileSync } from "node:fs";

const source = readFileSync(process.argv[2], "utf8");
const { decode, findDelimiter, readTable, textsOf } = await import(`data:text/javascript;base64,${Buffer.from(source).toString("base64")}`);
const cases = JSON.parse(readFileSync(0, "utf8"));
const found = cases.map(async ({ name, base64 }) => {
  try {
    const bytes = Buffer.from(base64, "base64");
    const text = await decode(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    const table = readTable(name, text, findDelimiter(name, text));
    const column = table.columns.indexOf("text");
    return table.rows.map((row) => {
      const { texts, error } = textsOf(row, [column]);
      return error ? { error } : { text: texts[0] };
    });
  } catch (error) {
    return { refused: error.message };
  }
});
process.stdout.write(JSON.stringify(await Promise.all(found)));
