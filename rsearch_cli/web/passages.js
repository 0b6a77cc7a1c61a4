// The side panel with passages: of one citation, or of one search.

import { appendMarked, BoundedText, el, foreignStart, markedWords, visibleStart, webLink } from "./text.js";

const panel = document.getElementById("passages");
const panelTitle = document.getElementById("passages-title");
const panelBody = document.getElementById("passages-body");

/** Shows the passage of a citation with the words of a text marked. */
export function showCitation(citation, text) {
  const nodes = (citation.nodes ?? []).map((label) => visibleStart(label, 20));
  const found = nodes.length ? `Found by ${nodes.join(", ")}` : "";
  showPanel(`Source ${citation.number}`, [passageView(citation, markedWords(text), found)]);
}

/** Shows what a node of a plan found, or why it found nothing. */
export function showNode(plan, label, answer, isRunning) {
  const node = plan.nodes.find((one) => one.label === label);
  const result = plan.results.find((one) => one.node === label);
  const about = [el("span", {}, "Source ", foreignStart(node.source))];
  if (result?.expansion?.length) {
    about.push(el("span", {}, "Added to the query: ", foreignStart(result.expansion.join(" "))));
  }
  if (result?.cached) about.push(el("span", {}, "From the cache"));
  const parts = [el("p", { class: "passage-meta muted small" }, ...about)];
  if (!result) parts.push(el("p", {}, isRunning ? "Not searched yet." : "Not searched."));
  else if (result.error) parts.push(el("p", { class: "note bad" }, "The search failed: ", foreignStart(result.error)));
  else if (result.passages.length === 0) parts.push(el("p", {}, "Nothing was found."));
  for (const problem of result?.unread ?? []) {
    parts.push(el("p", { class: "muted small" }, "Not read: ", foreignStart(problem)));
  }
  const words = markedWords(answer);
  parts.push(...(result?.passages ?? []).map((passage) => passageView(passage, words, "")));
  showPanel(`${visibleStart(node.label, 20)}: ${visibleStart(node.query, 300)}`, parts);
}

function passageView(passage, words, note) {
  const text = el("div", { class: "foreign", dir: "auto" });
  const fill = words.size ? (host, piece) => appendMarked(host, piece, words) : undefined;
  new BoundedText(text, { fill }).set(passage.text);
  const address = passage.url ?? passage.id;
  const about = [
    address ? el("span", {}, webLink(address.slice(0, 2000))) : null,
    Number.isFinite(passage.score) ? el("span", { class: "number" }, `score ${passage.score.toFixed(2)}`) : null,
    note ? el("span", {}, note) : null,
  ];
  return el(
    "section",
    { class: "passage" },
    el("h3", {}, foreignStart(passage.title || "Untitled")),
    el("p", { class: "passage-meta muted small" }, ...about.filter(Boolean)),
    text,
  );
}

function showPanel(title, parts) {
  panelTitle.replaceChildren(el("bdi", {}, title));
  panelBody.replaceChildren(...parts);
  if (!panel.open) panel.showModal();
  panel.scrollTop = 0;
}
