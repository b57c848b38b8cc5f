// The page of `assay serve`. Whatever comes from a text, a file or the server is shown as text, never as markup.

import { DELIMITERS, MOST_BYTES, cut, decode, findDelimiter, readTable, textsOf, writeTable } from "./rows.js";

const FIRST_BARS = 10;
const PREVIEW_ROWS = 20;
const BATCH_ROWS = 25; // small enough that the progress moves
const TRIES = 8;
const LOCKED = ["start", "column", "pair-column", "delimiter", "file"]; // while a file is scored
const RETRIED = new Set([429, 503, 504]);
const REFUSED = new Set([413, 422, 424]); // for what is in the texts, or for how many there are
const WORDS = {
  403: "This key may not do that",
  404: "This server has no such route",
  413: "That is more text than the server takes at once",
  422: "The server cannot use this text",
  424: "The model cannot score this",
  429: "The server is busy",
  500: "The server failed",
  503: "The server is not ready",
  504: "The server took too long",
};

const $ = (id) => document.getElementById(id);
const show = (id, visible = true) => $(id).toggleAttribute("hidden", !visible);

let key = null; // in memory only
let askedForKey = null; // the promise of a key, while the form is open
let info = null;

/** An element with attributes by name; children that are strings become text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// ---------------------------------------------------------------- talking to the server

class Trouble extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });

/** The JSON of an answer; asks for a key where one is needed, tries again where that can help. */
async function ask(path, body, { signal, onWait = () => {} } = {}) {
  for (let tries = 1; ; tries += 1) {
    let response = null;
    const sent = key;
    try {
      response = await fetch(new URL(path, document.baseURI), {
        method: body === undefined ? "GET" : "POST",
        headers: {
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
          ...(sent === null ? {} : { Authorization: `Bearer ${sent}` }),
        },
        body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store",
        signal,
      });
      if (response.ok) return await response.json();
    } catch (error) {
      if (signal?.aborted) throw error;
      if (response?.ok) throw new Trouble("The server's answer broke off, or is not JSON. Try again.");
    }
    if (response?.status === 401) {
      if (sent === key) {
        onWait("The server asks for an API key; waiting for it.");
        await askForKey(sent !== null, signal);
      }
      tries -= 1;
      continue;
    }
    const again = response === null || RETRIED.has(response.status);
    const asked = Number(response?.headers.get("Retry-After") ?? 0) || 0;
    if (!again || tries >= (body === undefined ? 1 : TRIES) || asked > 120) throw await inWords(response);
    const backoff = Math.min(0.25 * 2 ** (tries - 1), 8);
    const seconds = asked + backoff * (0.5 + Math.random() / 2);
    onWait(`${response === null ? "The server cannot be reached" : WORDS[response.status]}; trying again …`);
    await pause(seconds, signal);
  }
}

/** What an error answer means, for a reader. */
async function inWords(response) {
  if (response === null) return new Trouble("The server cannot be reached. Is it running?");
  let said = "";
  try {
    said = String((await response.json()).error ?? "");
  } catch {
    // a proxy's page, perhaps; the status says enough
  }
  const words = WORDS[response.status] ?? `The server answered ${response.status}`;
  return new Trouble(`${words}${said ? `: ${said}` : "."}`, response.status);
}

/** Opens the form for a key and waits until one is given. */
function askForKey(wasWrong, signal) {
  askedForKey ??= new Promise((resolve) => {
    $("key-hint").textContent = wasWrong
      ? "The server does not know this key. It stays in this page's memory and is gone when you close it."
      : "The server asks for a key. It stays in this page's memory and is gone when you close it.";
    show("key-section");
    $("key").value = "";
    $("key").focus();
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      const given = $("key").value.trim();
      if (!/^[\x21-\x7e]+$/.test(given)) {
        $("key-hint").textContent = "A key has no spaces and only plain ASCII characters. Look at it again.";
        return;
      }
      key = given;
      $("key").value = "";
      show("key-section", false);
      askedForKey = null;
      resolve();
    };
  });
  if (!signal) return askedForKey;
  return Promise.race([
    askedForKey,
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true })),
  ]);
}

/** Predictions for pairs or single texts, in order. */
function predict(texts, options) {
  const body = { texts: texts.map((one) => one[0]), details: true };
  if (texts[0].length === 2) body.text_pairs = texts.map((one) => one[1]);
  return ask("predict/batch", body, options);
}

// ---------------------------------------------------------------- what is served

async function start() {
  try {
    info = await ask("info", undefined, { onWait: (words) => ($("model").textContent = words) });
  } catch (error) {
    $("model").textContent = "Nothing is known about the model.";
    $("trouble").textContent = `${error.message} Reload the page to try again.`;
    show("trouble");
    return;
  }
  const name = String(info.model_id ?? "").split("/").filter(Boolean).pop() ?? "";
  if (name) $("title").textContent = name;
  document.title = name ? `${name} | Assay` : "Assay";
  show("info-link", key === null); // a link carries no key
  $("version").textContent = `Assay ${info.version}`;
  if (info.dimension !== undefined) {
    $("model").textContent =
      `Gives each text a vector of ${count(info.dimension, "number")}, from up to ` +
      `${count(info.max_input_length, "token")}: ask POST /embed.`;
    for (const section of ["text-section", "file-section"]) show(section, false);
    return;
  }
  const gives = { single_label: `one of ${info.labels.length} labels`, multi_label: `any of ${info.labels.length} labels` };
  const calibrated = info.task in gives && info.calibrated === false ? " Its probabilities are not calibrated." : "";
  $("model").textContent =
    `Gives each ${info.is_pair === true ? "pair of texts" : "text"} ${gives[info.task] ?? "a score"}, from up to ` +
    `${count(info.max_input_length, "token")}.${calibrated}`;
  if (info.is_pair !== false) {
    const optional = info.is_pair === true ? "" : " (for pair models)";
    $("text-label").textContent = info.is_pair === true ? "First text" : "Text";
    $("pair-label").textContent = `Second text${optional}`;
    $("pair").required = info.is_pair === true;
    show("pair-field");
  }
}

// ---------------------------------------------------------------- one text

const given = (value) => value !== undefined && value !== null;
const number = (value) => (Math.abs(value) >= 1000 ? value.toFixed(1) : value.toFixed(4));
const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
const count = (value, noun) => `${value.toLocaleString("en")} ${noun}${value === 1 ? "" : "s"}`;

/** The labels that a prediction holds, as words. */
function verdictOf(answer) {
  if (given(answer.score)) {
    const between = given(answer.interval) ? ` (${number(answer.interval[0])} to ${number(answer.interval[1])})` : "";
    return `Score ${number(answer.score)}${between}`;
  }
  if (answer.labels) return answer.labels.length ? answer.labels.join(", ") : "No label holds";
  return answer.label;
}

function showBars(answer) {
  const chosen = new Set(answer.labels ?? [answer.label]);
  const sorted = Object.entries(answer.all_probabilities ?? {}).sort((one, other) => other[1] - one[1]);
  const items = sorted.map(([label, probability], index) => {
    const fill = element("span", { class: "fill" });
    fill.style.width = `${100 * probability}%`;
    const item = element(
      "li",
      chosen.has(label) ? { class: "chosen" } : {},
      element("span", { class: "name" }, label),
      element("span", { class: "track", "aria-hidden": "true" }, fill),
      element("span", { class: "value" }, number(probability)),
    );
    item.hidden = index >= FIRST_BARS;
    return item;
  });
  $("bars").replaceChildren(...items);
  $("more").textContent = `Show all ${items.length} labels`;
  show("more", items.length > FIRST_BARS);
}

$("more").addEventListener("click", () => {
  for (const item of $("bars").children) item.hidden = false;
  show("more", false);
  $("bars").setAttribute("tabindex", "-1");
  $("bars").focus();
});

function showAnswer(answer, roundTrip) {
  $("verdict").textContent = verdictOf(answer);
  showBars(answer);
  show("bars", !given(answer.score));
  const isCut = answer.truncated === true;
  $("cut").textContent = `The text is longer than the ${info?.max_input_length ?? ""} tokens that the model reads: the rest did not count.`;
  show("cut", isCut);
  const facts = [];
  if (given(answer.int_score)) facts.push(["Whole score", String(answer.int_score)]);
  if (given(answer.num_tokens)) facts.push(["Length", count(answer.num_tokens, "token")]);
  if (given(answer.truncated)) facts.push(["Truncated", isCut ? "yes" : "no"]);
  const times = answer.timings;
  if (times) {
    facts.push(["Waiting", milliseconds(times.queue_ms)]);
    facts.push(["Tokenizing", milliseconds(times.tokenize_ms)]);
    facts.push(["Model", milliseconds(times.forward_ms)]);
  }
  facts.push(["Round trip", milliseconds(roundTrip)]);
  $("facts").replaceChildren(
    ...facts.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value))),
  );
  show("result");
  const best = !given(answer.confidence) ? "" : `, probability ${number(answer.confidence)}`;
  const sentence = `${verdictOf(answer)}${best}${isCut ? "; the text was cut" : ""}.`;
  say("text-status", sentence, { isUnseen: true }); // it is all to be seen below
}

/** A sentence where it belongs, read out by a screen reader. */
function say(id, sentence, { isBad = false, isUnseen = false } = {}) {
  $(id).textContent = sentence;
  $(id).classList.toggle("bad", isBad);
  $(id).classList.toggle("unseen", isUnseen);
}

$("text-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if ($("score").disabled) return;
  const pair = $("pair-field").hidden ? "" : $("pair").value;
  $("score").disabled = true;
  say("text-status", "Scoring …");
  try {
    const began = performance.now();
    const [answer] = await predict([pair ? [$("text").value, pair] : [$("text").value]], {
      onWait: (words) => say("text-status", words),
    });
    showAnswer(answer, performance.now() - began);
  } catch (error) {
    show("result", false);
    say("text-status", error.message, { isBad: true });
  } finally {
    $("score").disabled = false;
  }
});

for (const id of ["text", "pair"]) {
  $(id).addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("text-form").requestSubmit();
  });
}

// ---------------------------------------------------------------- a file

let table = null;
let fileName = "";
let fileText = "";
let hadMark = false;
let running = null; // the AbortController of the file under way
let link = null; // the address of the scored file, to be given back

async function openFile(file) {
  if (running || !file) return;
  table = null;
  for (const id of ["delimiter-field", "file-form", "file-result", "progress-field"]) show(id, false);
  say("file-status", `Reading ${file.name} …`);
  try {
    if (file.size > MOST_BYTES) {
      throw new Error(`The file has ${Math.round(file.size / 1e6)} MB; this page takes 50 MB at the most. Use assay score for more.`);
    }
    const bytes = await file.arrayBuffer();
    hadMark = `${[...new Uint8Array(bytes.slice(0, 3))]}` === "239,187,191";
    fileText = await decode(bytes);
    fileName = file.name;
    const delimiter = findDelimiter(fileName, fileText);
    show("delimiter-field", delimiter !== null);
    $("delimiter").value = delimiter ?? ",";
  } catch (error) {
    say("file-status", error.message, { isBad: true });
    return;
  }
  readFile();
  if (table) $("column").focus();
}

/** Reads the file's text, again where another delimiter was chosen. */
function readFile() {
  table = null;
  show("file-form", false);
  show("file-result", false);
  try {
    table = readTable(fileName, fileText, $("delimiter").value);
  } catch (error) {
    say("file-status", error.message, { isBad: true });
    return;
  }
  showTable();
}

/** What the file has, and which of its columns may be scored. */
function showTable() {
  $("file-facts").textContent = `${fileName}: ${count(table.rows.length, "row")}, ${count(table.columns.length, "column")}`;
  const options = () => table.columns.map((column, index) => element("option", { value: index }, column));
  const guess = table.columns.findIndex((column) => /^(text|body|content|document)$/i.test(column));
  const longest = longestColumns();
  const isPair = info?.is_pair === true;
  const [text, pair] = isPair ? longest.slice(0, 2).sort((one, other) => one - other) : [guess < 0 ? longest[0] : guess];
  $("column").replaceChildren(...options());
  $("column").value = String(text);
  $("pair-column").replaceChildren(...(isPair ? [] : [element("option", { value: "" }, "none")]), ...options());
  if (isPair) $("pair-column").value = String(pair ?? text);
  show("pair-column-field", info?.is_pair !== false);
  show("file-form");
  say("file-status", "Choose the column and start.");
}

/** Indices of the columns, those with the longest texts in the first rows before others. */
function longestColumns() {
  const lengths = table.columns.map((_, index) =>
    table.rows.slice(0, 50).reduce((sum, row) => sum + (typeof row.cells[index] === "string" ? row.cells[index].length : 0), 0),
  );
  return [...lengths.keys()].sort((one, other) => lengths[other] - lengths[one]);
}

/** The score columns of a prediction, as in a scored part. */
function columnsOf(answer) {
  const columns = { error: null, num_tokens: answer.num_tokens, truncated: answer.truncated };
  if (given(answer.score)) columns.prediction = answer.score;
  if (given(answer.interval)) [columns.prediction_low, columns.prediction_high] = answer.interval;
  if (given(answer.int_score)) columns.int_score = answer.int_score;
  if (given(answer.label)) Object.assign(columns, { prediction: answer.label, probability: answer.confidence });
  for (const [label, value] of Object.entries(answer.all_probabilities ?? {})) columns[`prob_${label}`] = value;
  return columns;
}

/** Scores a batch of rows into `scores`; a batch that is refused is halved until the row at fault stands alone. */
async function scoreBatch(batch, scores, options) {
  try {
    const answers = await predict(batch.map((row) => row.texts), options);
    if (!Array.isArray(answers) || answers.length !== batch.length) throw new Trouble("The server left rows out. Try again.");
    batch.forEach((row, index) => (scores[row.index] = columnsOf(answers[index])));
  } catch (error) {
    if (!REFUSED.has(error.status)) throw error;
    if (batch.length === 1) {
      scores[batch[0].index] = { error: error.message };
      return;
    }
    const half = Math.ceil(batch.length / 2);
    await scoreBatch(batch.slice(0, half), scores, options);
    await scoreBatch(batch.slice(half), scores, options);
  }
}

async function scoreFile() {
  const columns = [Number($("column").value)];
  if (!$("pair-column-field").hidden && $("pair-column").value !== "") columns.push(Number($("pair-column").value));
  running = new AbortController();
  const total = table.rows.length;
  const scores = new Array(total);
  const wanted = [];
  table.rows.forEach((row, index) => {
    const { texts, error } = textsOf(row, columns);
    if (error) scores[index] = { error };
    else wanted.push({ index, texts });
  });
  const mostRows = Math.min(info?.max_client_batch_size ?? BATCH_ROWS, BATCH_ROWS);
  const batches = cut(wanted, mostRows, (info?.max_body_bytes ?? 1_000_000) - 100);
  let done = total - wanted.length;
  let saidAt = 0;
  const tell = () => {
    $("progress").max = total;
    $("progress").value = done;
    $("progress-text").textContent = `${done.toLocaleString("en")} of ${count(total, "row")}`;
    if (done / total >= saidAt + 0.25 && done < total) {
      saidAt = Math.floor((4 * done) / total) / 4;
      say("file-status", `${Math.round(100 * saidAt)}% scored.`);
    }
  };
  const options = { signal: running.signal, onWait: (words) => say("file-status", words) };
  for (const id of LOCKED) $(id).disabled = true;
  show("cancel");
  show("file-result", false);
  show("progress-field");
  say("file-status", `Scoring ${count(total, "row")} …`);
  tell();
  $("cancel").focus();
  try {
    for (const batch of batches) {
      await scoreBatch(batch, scores, options);
      done += batch.length;
      tell();
    }
    showScored(scores);
  } catch (error) {
    const isCancelled = running.signal.aborted;
    say("file-status", isCancelled ? `Cancelled after ${count(done, "row")}.` : `${error.message} Stopped after ${count(done, "row")}.`, {
      isBad: !isCancelled,
    });
    show("progress-field", false);
  } finally {
    running = null;
    for (const id of LOCKED) $(id).disabled = false;
    show("cancel", false);
  }
  ($("file-result").hidden ? $("start") : $("download")).focus();
}

function showScored(scores) {
  const names = [...new Set(scores.flatMap((row) => Object.keys(row)))];
  const first = ["num_tokens", "truncated", "error"].filter((name) => names.includes(name));
  const scoreNames = names.filter((name) => !first.includes(name));
  const ordered = [...first, ...scoreNames];
  const failed = scores.filter((row) => given(row.error)).length;
  const text = writeTable(table, ordered, scores);
  if (link) URL.revokeObjectURL(link);
  const media = table.kind === "csv" ? "text/csv" : "application/x-ndjson";
  link = URL.createObjectURL(new Blob([hadMark ? "\ufeff" : "", text], { type: media }));
  const scored = fileName.replace(/\.gz$/i, "").replace(/\.[^.]+$/, ".scored$&"); // it is not packed again
  $("download").href = link;
  $("download").download = scored;
  $("download").textContent = `Download ${scored}`;
  const column = Number($("column").value);
  const shown = scoreNames.filter((name, index) => (scoreNames[0] === "prediction" ? !name.startsWith("prob_") : index < 6));
  $("preview-head").replaceChildren(
    ...[table.columns[column], ...shown, ...(failed ? ["error"] : [])].map((name) => element("th", { role: "columnheader", scope: "col" }, name)),
  );
  const cell = (name, value) => {
    const isNumber = typeof value === "number";
    const words = isNumber && !Number.isInteger(value) ? number(value) : String(value ?? "");
    return element("td", { role: "cell", "data-column": name, class: isNumber ? "number" : value ? "text" : "" }, words);
  };
  $("preview").replaceChildren(
    ...scores.slice(0, PREVIEW_ROWS).map((row, index) => {
      const { cells, raw, line, error } = table.rows[index];
      const whole = error ? (raw ?? line) : cells[column];
      const start = typeof whole === "string" ? whole : JSON.stringify(whole);
      return element(
        "tr",
        { role: "row" },
        element("td", { role: "cell", class: "text" }, start.length > 160 ? `${start.slice(0, 160)} …` : start),
        ...shown.map((name) => cell(name, row[name])),
        ...(failed ? [cell("error", row.error)] : []),
      );
    }),
  );
  $("preview-caption").textContent = scores.length > PREVIEW_ROWS ? `The first ${PREVIEW_ROWS} rows` : "All rows";
  show("file-result");
  const without = failed ? `; ${count(failed, "row")} without a score, see column error` : "";
  say("file-status", `${count(scores.length - failed, "row")} scored${without}.`);
}

$("file").addEventListener("change", () => openFile($("file").files[0]));
$("delimiter").append(...Object.entries(DELIMITERS).map(([value, words]) => element("option", { value }, words)));
$("delimiter").addEventListener("change", readFile);
$("file-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running && table) scoreFile();
});
$("cancel").addEventListener("click", () => running?.abort());

const section = $("file-section");
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    section.classList.toggle("over", section.contains(event.target) && !running);
  });
}
document.addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault(); // a file dropped beside the section should not replace the page
  section.classList.remove("over");
  if (section.contains(event.target)) openFile(event.dataTransfer.files[0]);
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) section.classList.remove("over");
});

start();
