// An answer with its citations, as elements and as Markdown.

import { BoundedText, el, foreign, visible } from "./text.js";

/** The sentences of an answer `{text, numbers, supported}`; a short answer is one, unchecked. */
function sentencesOf(turn) {
  const sentences = turn.final?.paragraph?.sentences;
  if (Array.isArray(sentences) && sentences.length) return sentences;
  const holding = (turn.final?.citations ?? []).filter((citation) => citation.holds_answer);
  return [{ text: turn.answer, numbers: holding.map(({ number }) => number), supported: null }];
}

export function answerView(turn, actions) {
  const sentences = sentencesOf(turn);
  const isShort = !turn.final?.paragraph?.sentences?.length;
  const host = el("div", { class: isShort ? "answer short" : "answer" });
  if (!turn.answer && isShort) {
    host.append(el("span", { class: "muted" }, "No answer."));
    return host;
  }
  for (const { text, numbers, supported } of sentences) {
    const words = el("bdi", { class: "foreign" });
    new BoundedText(words).set(text);
    const sentence = el("span", { class: supported === false ? "sentence unsupported" : "sentence" }, words);
    const marks = numbers.flatMap((number) => markFor(turn, number, text, actions));
    host.append(sentence, " ", ...marks.flatMap((mark) => [mark, " "]));
    if (supported === false) host.append(el("span", { class: "tag warn" }, "not in the passages"), " ");
  }
  if (turn.final?.paragraph?.note) host.append(foreign(turn.final.paragraph.note, "p", { class: "muted small" }));
  return host;
}

function markFor(turn, number, text, actions) {
  const citation = turn.final.citations.find((one) => one.number === number);
  if (!citation) return [];
  const name = `Source ${number}: ${titleOf(citation)}`;
  const open = () => actions.openCitation(turn, citation, text);
  return [el("button", { type: "button", class: "cite", "aria-label": name, title: name, onclick: open }, `${number}`)];
}

/** The passages that were found: those that hold the answer, the others on demand. */
export function sourcesView(turn, actions) {
  const citations = turn.final?.citations ?? [];
  if (citations.length === 0) return null;
  const cited = new Set(sentencesOf(turn).flatMap(({ numbers }) => numbers));
  const first = citations.filter(({ number }) => cited.has(number));
  const others = citations.filter(({ number }) => !cited.has(number));
  const host = el("section", { class: "sources", "aria-label": "Sources" });
  if (first.length) host.append(el("h3", {}, "Sources"), listView(turn, first, actions));
  if (others.length) {
    const name = first.length ? `${others.length} more found` : `${others.length} found`;
    host.append(el("details", {}, el("summary", {}, `${name}`), listView(turn, others, actions)));
  }
  return host;
}

function listView(turn, citations, actions) {
  return el(
    "ol",
    {},
    ...citations.map((citation) =>
      el(
        "li",
        {},
        el(
          "button",
          { type: "button", onclick: () => actions.openCitation(turn, citation, turn.answer) },
          el("span", { class: "muted number" }, `${citation.number}`),
          el("bdi", { class: "title" }, titleOf(citation)),
        ),
      ),
    ),
  );
}

function titleOf({ title, id }) {
  return visible(title || id || "Untitled").slice(0, 300).toWellFormed();
}

/** The answer as plain text. */
export function answerAsText(turn) {
  const sentences = sentencesOf(turn);
  return sentences.map(({ text }) => text).join(" ").trim();
}

/** Question, answer and its sources as Markdown; text from outside is escaped. */
export function answerAsMarkdown(turn) {
  const sentences = sentencesOf(turn).map(({ text, numbers, supported }) => {
    const marks = numbers.map((number) => `\\[${number}\\]`).join("");
    const doubt = supported === false ? " *(not in the passages)*" : "";
    return `${escapeMarkdown(text)}${marks ? ` ${marks}` : ""}${doubt}`;
  });
  const cited = new Set(sentencesOf(turn).flatMap(({ numbers }) => numbers));
  const sources = (turn.final?.citations ?? [])
    .filter(({ number }) => cited.has(number))
    .map((citation) => `${citation.number}. ${sourceAsMarkdown(citation)}`);
  const parts = [`## ${escapeMarkdown(turn.question)}`, sentences.join(" ") || "No answer.", sources.join("\n")];
  return `${parts.filter(Boolean).join("\n\n")}\n`;
}

function sourceAsMarkdown(citation) {
  const title = escapeMarkdown(titleOf(citation));
  if (!/^https?:\/\//i.test(citation.url ?? "")) return title;
  try {
    const address = new URL(citation.url).href.replace(/[<>()]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);
    return `[${title}](${address})`;
  } catch {
    return title;
  }
}

function escapeMarkdown(text) {
  const flat = visible(text).split(/\s+/).filter(Boolean).join(" ");
  return flat.replace(/([\\`*_{}[\]<>#|~&$!])/g, "\\$1");
}
