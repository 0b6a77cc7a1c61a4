// The data of the page: embedded in the file, or served by `rsearch view --serve`.

const KEPT_PARTS = 24;

/** Open the data. Returns a store; see `Store`. */
export async function openStore() {
  const embedded = document.getElementById("rsearch-index");
  return embedded ? new Store(new EmbeddedData(), await unpack(embedded)) : openServed();
}

async function openServed() {
  const data = new ServedData();
  return new Store(data, await data.index());
}

async function unpack(element) {
  const text = element.textContent;
  const bytes = Uint8Array.fromBase64
    ? Uint8Array.fromBase64(text)
    : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/**
 * Compressed data elements of this document. Parts come after the script, so that the page is
 * there before all of a large file is read.
 */
class EmbeddedData {
  live = false;

  async part(source, part) {
    const id = `rsearch-part-${source}-${part}`;
    let element = document.getElementById(id);
    // The parser inserts an element before its text is complete; a line feed follows when it is.
    while (!element?.nextSibling && document.readyState === "loading") {
      await new Promise((resolve) => setTimeout(resolve, 20));
      element = document.getElementById(id);
    }
    if (!element) throw new Error(`this file is incomplete: it has no ${id}`);
    return unpack(element);
  }
}

class ServedData {
  live = true;
  tag = null;

  /** The index, or null if it has not changed since the last call. */
  async index() {
    const response = await this.fetch("/data/index.json");
    const tag = response.headers.get("etag");
    if (tag !== null && tag === this.tag) return null;
    const index = await response.json();
    this.tag = tag;
    return index;
  }

  async part(source, part) {
    return (await this.fetch(`/data/part-${source}-${part}.json`)).json();
  }

  async fetch(path) {
    const response = await fetch(path, { cache: "no-cache" });
    if (!response.ok) throw new Error(`${path}: status ${response.status}`);
    return response;
  }
}

/** All sources, and the details of their trajectories, which are decoded on demand. */
class Store {
  constructor(data, index) {
    this.data = data;
    this.live = data.live;
    this.kept = new Map();
    this.read(index);
  }

  read(index) {
    if (index.schema !== 1) throw new Error(`data of schema ${index.schema}, this page reads schema 1`);
    this.title = index.title;
    this.comparisons = index.comparisons ?? [];
    this.sources = index.sources.map((source, number) => new Source(source, number));
  }

  /** Fetch the index again. Returns whether anything changed. */
  async refresh() {
    const index = await this.data.index();
    if (index) this.read(index);
    return index !== null;
  }

  /** Return the details of one trajectory. */
  async detail(source, row) {
    const part = source.partOf(row);
    const rows = await this.part(source, part);
    const detail = rows[row - source.parts[part].first];
    if (!detail) throw new Error(`part ${part} has no row ${row}`);
    return detail;
  }

  part(source, part) {
    const key = `${source.number}-${part}-${source.parts[part].count}-${source.generation}`;
    const found = this.kept.get(key) ?? this.data.part(source.number, part);
    this.kept.delete(key);
    this.kept.set(key, found);
    found.catch(() => this.kept.delete(key));
    if (this.kept.size > KEPT_PARTS) this.kept.delete(this.kept.keys().next().value);
    return found;
  }
}

/** One run or evaluation, its columns as typed arrays. */
class Source {
  constructor(source, number) {
    Object.assign(this, source);
    this.number = number;
    this.count = source.rows.count;
    this.columns = {};
    for (const [name, values] of Object.entries(source.rows.columns)) {
      const texts = source.rows.dictionaries[name];
      const column = texts ? textColumn(values, texts) : numberColumn(values);
      if (column) this.columns[name] = column;
    }
    delete this.rows;
    this.known = new Map();
  }

  /** The names of the columns with a known value in a phase, or in any if it is "". */
  knownIn(phase) {
    if (!this.known.has(phase)) {
      const phases = this.columns.phase;
      const code = phase && phases ? phases.texts.indexOf(phase) : null;
      const isKnown =
        ({ values, codes }) =>
        (row) =>
          (code === null || phases.codes[row] === code) &&
          (values ? !Number.isNaN(values[row]) : codes[row] >= 0);
      this.known.set(
        phase,
        new Set(Object.keys(this.columns).filter((name) => someRow(this.count, isKnown(this.columns[name])))),
      );
    }
    return this.known.get(phase);
  }

  partOf(row) {
    let [low, high] = [0, this.parts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.parts[middle].first <= row) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** The number in a column, or null. */
  numberAt(name, row) {
    const value = this.columns[name]?.values?.[row];
    return value === undefined || Number.isNaN(value) ? null : value;
  }

  /** The text in a column, or null. */
  textAt(name, row) {
    const column = this.columns[name];
    const code = column?.codes?.[row];
    return code === undefined || code < 0 ? null : column.texts[code];
  }
}

function someRow(rows, test) {
  for (let row = 0; row < rows; row++) if (test(row)) return true;
  return false;
}

/** Null if nothing in the column is known. */
function numberColumn(values) {
  const numbers = new Float64Array(values.length);
  let known = false;
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    numbers[row] = value === null ? NaN : Number(value);
    known ||= value !== null;
  }
  return known ? { values: numbers } : null;
}

function textColumn(values, texts) {
  const codes = new Int32Array(values.length);
  let known = false;
  for (let row = 0; row < values.length; row++) {
    codes[row] = values[row] ?? -1;
    known ||= values[row] !== null;
  }
  return known ? { codes, texts } : null;
}
