// The agent's HTTP interface: chat completions as a stream of events, and what the server offers.

const KEY_NAME = "rsearch.key";

/** A request that failed: `title` in plain words, `detail` as the server puts it. */
export class AskError extends Error {
  constructor(title, { detail = "", status = 0, wait = null } = {}) {
    super(title);
    this.title = title;
    this.detail = detail;
    this.status = status;
    this.wait = wait;
  }
}

export function setKey(key) {
  sessionStorage.setItem(KEY_NAME, key);
}

export function hasKey() {
  return sessionStorage.getItem(KEY_NAME) !== null;
}

function headers() {
  const key = sessionStorage.getItem(KEY_NAME);
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

/** The first model that the server lists, with what it says about itself. */
export async function readModel() {
  const response = await send("/v1/models", { headers: headers() });
  const { data } = await response.json();
  return data[0];
}

/**
 * Asks, and calls `onEvent` with each event.
 *
 * @param messages As in OpenAI's chat completions; the last one is the question.
 * @param options The request's `rsearch` field.
 * @param signal Aborts the request.
 */
export async function ask({ model, messages, options, signal, onEvent }) {
  const body = JSON.stringify({ model, messages, stream: true, rsearch: options });
  const response = await send("/v1/chat/completions", { method: "POST", headers: headers(), body, signal });
  let done = false;
  try {
    for await (const data of readEvents(response.body)) {
      if (data === "[DONE]") {
        done = true;
        break;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) throw errorOf(chunk.error.code, 0, chunk.error.message, null);
      if (chunk.rsearch) onEvent(chunk.rsearch);
    }
  } catch (error) {
    if (signal.aborted || error instanceof AskError) throw error;
    throw new AskError("The connection broke before the answer was complete.");
  }
  if (!done) throw new AskError("The connection broke before the answer was complete.");
}

async function send(path, init) {
  let response;
  try {
    response = await fetch(path, { ...init, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new AskError("The server cannot be reached. Check that rsearch serve is still running.");
  }
  if (response.ok) return response;
  let said = {};
  try {
    said = (await response.json()).error ?? {};
  } catch {
    // No body that says more.
  }
  const wait = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  throw errorOf(said.code, response.status, said.message, Number.isFinite(wait) ? wait : null);
}

function errorOf(code, status, message, wait) {
  const titles = {
    401: "The server asks for an API key.",
    402: "The budget is spent.",
    413: "The question is too long for the server.",
    429: "The server is busy.",
    502: "A service that the agent needs did not reply.",
    503: "The server is not taking questions now.",
  };
  const byCode = {
    rate_limit_exceeded: "Too many questions in a short time.",
    shutting_down: "The server is shutting down.",
    budget_exceeded: titles[402],
    upstream_failed: titles[502],
  };
  const title = byCode[code] ?? titles[status] ?? "The question could not be answered.";
  return new AskError(title, { detail: message ?? (status ? `HTTP status ${status}` : ""), status, wait });
}

/** The data of server-sent events, in order. */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = [];
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = value.split("\n");
      held.push(lines[0]);
      for (const next of lines.slice(1)) {
        const line = held.join("").replace(/\r$/, "");
        held = [next];
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
