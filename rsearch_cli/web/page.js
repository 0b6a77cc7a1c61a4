// The page of `rsearch serve`: the conversation, its controls and the keyboard.

import { Announcer } from "./announcer.js";
import { answerAsMarkdown, answerAsText } from "./answer_view.js";
import { ask, AskError, hasKey, readModel, setKey } from "./api.js";
import { deleteAllConversations, deleteConversation, listConversations, saveConversation } from "./history.js";
import { showCitation, showNode } from "./passages.js";
import { el, visibleStart } from "./text.js";
import { setUpTheme } from "./theme.js";
import { applyEvent, messagesFor, newTurn, storedTurn } from "./turn.js";
import { describeProgress, TurnView } from "./turn_view.js";

const CURRENT_KEY = "rsearch.current";
const byId = (id) => document.getElementById(id);

const announcer = new Announcer(byId("progress"));

let model = null; // what the server said about itself, once it has
let conversation = newConversation();
let running = null; // {turn, controller} of the question that is being answered

const actions = {
  openCitation: (turn, citation, text) => showCitation(citation, text),
  openNode: (turn, plan, label) => showNode(plan, label, turn.answer, turn.outcome === "running"),
  copy: (turn, format) => copyText(format === "markdown" ? answerAsMarkdown(turn) : answerAsText(turn)),
  retry: (turn) => {
    if (running) return;
    conversation.turns = conversation.turns.filter((one) => one !== turn);
    conversation.views.get(turn).close();
    conversation.views.delete(turn);
    answer(turn.question);
  },
};

function newConversation() {
  return { id: crypto.getRandomValues(new Uint32Array(3)).join("-"), turns: [], views: new Map() };
}

/** Asks a question and shows the answer as it comes. */
async function answer(question) {
  const turn = newTurn(question);
  const own = conversation;
  const history = byId("follow-up").checked ? own.turns : [];
  const messages = messagesFor(history, question);
  own.turns.push(turn);
  addView(own, turn);
  running = { turn, controller: new AbortController() };
  const { controller } = running;
  const isTyping = document.activeElement === byId("question");
  paintControls();
  if (!isTyping) byId("stop").focus({ preventScroll: true });
  stickToEnd = true;
  own.views.get(turn).element.scrollIntoView({ block: "start" });
  try {
    const onEvent = (event) => follow(own, turn, event);
    await askServer({ messages, signal: controller.signal, onEvent });
    if (turn.outcome === "running") throw new AskError("The server ended without an answer.");
  } catch (error) {
    fail(turn, error, controller.signal.aborted);
  }
  running = null;
  if (document.activeElement === byId("stop")) own.views.get(turn)?.element.focus({ preventScroll: true });
  own.views.get(turn)?.update();
  announcer.sayNow(describeProgress(turn));
  keep(own);
  paintControls();
}

/** Ends a turn that has no whole answer. */
function fail(turn, error, isStopped) {
  if (turn.outcome === "done") return;
  turn.outcome = isStopped ? "stopped" : "failed";
  if (isStopped) return;
  const { title, detail, wait } =
    error instanceof AskError ? error : { title: "The page failed.", detail: String(error), wait: null };
  turn.error = { title, detail, wait };
}

function follow(own, turn, event) {
  applyEvent(turn, event);
  own.views.get(turn)?.update();
  announcer.say(describeProgress(turn));
}

/** Asks; if the server wants a key, or has another model than before, once more with that. */
async function askServer(request) {
  const options = { style: byId("style").value, follow_up: byId("follow-up").checked };
  for (let attempt = 0; ; attempt += 1) {
    try {
      if (model === null) showModel(await readModel());
      return await ask({ ...request, model: model.id, options });
    } catch (error) {
      if (error.status === 404 && attempt === 0) model = null;
      else if (error.status !== 401 || !(await promptForKey())) throw error;
    }
  }
}

/** Reads what the server offers, with a key if it wants one; without it, the page waits. */
async function loadModel() {
  try {
    showModel(await readModel());
  } catch (error) {
    if (error.status === 401 && (await promptForKey())) await loadModel();
  }
}

let keyPrompt = null;

/** Asks for the key; whether one was given. */
function promptForKey() {
  keyPrompt ??= new Promise((resolve) => {
    const [dialog, field] = [byId("key"), byId("key-field")];
    byId("key-refused").hidden = !hasKey();
    dialog.returnValue = "";
    dialog.showModal();
    const finish = () => {
      const isGiven = dialog.returnValue === "given";
      if (isGiven) setKey(field.value.trim());
      field.value = "";
      keyPrompt = null;
      resolve(isGiven);
    };
    dialog.addEventListener("close", finish, { once: true });
  });
  return keyPrompt;
}

function addView(own, turn) {
  const view = new TurnView(turn, actions);
  view.onPaint = () => followEnd();
  own.views.set(turn, view);
  byId("turns").append(view.element);
  view.paint(); // graphs need to know their width
  byId("welcome").hidden = true;
}

let stickToEnd = true;

/** Keeps the end in view while an answer grows, unless the person has scrolled away from it. */
function followEnd() {
  if (stickToEnd) window.scrollTo({ top: document.documentElement.scrollHeight });
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Only pages of https and of this machine may write there; the older way needs a selection.
    const field = el("textarea", { class: "visually-hidden", "aria-hidden": "true" });
    const focused = document.activeElement;
    field.value = text;
    document.body.append(field);
    field.select();
    const isCopied = document.execCommand("copy");
    field.remove();
    focused.focus();
    return isCopied;
  }
}

// Conversations

function keep(own) {
  if (own.turns.length === 0 || own.isDeleted) return;
  const title = visibleStart(own.turns[0].question, 120);
  saveConversation({ id: own.id, title, at: Date.now(), turns: own.turns.map(storedTurn) });
  if (own === conversation) remember(own.id);
}

function remember(id) {
  try {
    if (id === null) sessionStorage.removeItem(CURRENT_KEY);
    else sessionStorage.setItem(CURRENT_KEY, id);
  } catch {
    // Then a reload begins a new conversation.
  }
}

function openConversation(stored = null) {
  running?.controller.abort();
  conversation.views.forEach((view) => view.close());
  conversation = newConversation();
  remember(stored?.id ?? null);
  if (stored) {
    Object.assign(conversation, { id: stored.id, turns: stored.turns });
    stored.turns.forEach((turn) => addView(conversation, turn));
  }
  byId("welcome").hidden = conversation.turns.length > 0;
  byId("question").focus();
}

function showHistory() {
  const list = byId("conversations");
  const entries = listConversations().map((stored) => {
    const reopen = el(
      "button",
      { type: "button", class: "reopen" },
      el("bdi", { class: "title" }, visibleStart(stored.title ?? "Conversation", 200)),
      el("span", { class: "muted small number" }, describeConversation(stored)),
    );
    reopen.addEventListener("click", () => {
      byId("history").close();
      openConversation(stored);
    });
    const name = `Delete ${visibleStart(stored.title ?? "Conversation", 200)}`;
    const remove = el("button", { type: "button", class: "button quiet", "aria-label": name }, "Delete");
    remove.addEventListener("click", () => forget(stored.id));
    return el("li", { class: stored.id === conversation.id ? "current" : null }, reopen, remove);
  });
  list.replaceChildren(...(entries.length ? entries : [el("li", { class: "muted" }, "Nothing yet.")]));
  byId("delete-all").hidden = entries.length === 0;
  if (!byId("history").open) byId("history").showModal();
}

function describeConversation({ at, turns }) {
  const when = new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  return `${when} · ${turns.length} ${turns.length === 1 ? "question" : "questions"}`;
}

function forget(id) {
  if (id === null) deleteAllConversations();
  else deleteConversation(id);
  if (id === null || id === conversation.id) {
    conversation.isDeleted = true;
    openConversation();
  }
  showHistory();
  byId("history").querySelector("button.close").focus();
}

// Controls

function paintControls() {
  const isRunning = running !== null;
  byId("send").hidden = isRunning;
  byId("stop").hidden = !isRunning;
}

function submit() {
  const question = byId("question").value.trim();
  if (question === "" || running) return;
  byId("question").value = "";
  fitQuestion();
  answer(question);
}

/** Gives the question as many lines as it has, in browsers without `field-sizing`. */
function fitQuestion() {
  const field = byId("question");
  if (!CSS.supports("field-sizing", "content")) field.rows = Math.min(8, field.value.split("\n").length);
}

function stop() {
  running?.controller.abort();
}

function showModel(found) {
  model = found;
  if (!byId("model").textContent) {
    byId("style").value = found.rsearch?.style === "paragraph" ? "paragraph" : "short";
    byId("follow-up").checked = found.rsearch?.follow_up !== false;
  }
  const name = visibleStart(found.rsearch?.name ?? found.id, 200);
  byId("model").textContent = name;
  byId("welcome-model").querySelector("bdi").textContent = name;
  byId("welcome-model").hidden = false;
  const examples = Array.isArray(found.rsearch?.examples) ? found.rsearch.examples.slice(0, 4) : [];
  const buttons = examples.map((text) => {
    const button = el("button", { type: "button", class: "button" }, el("bdi", {}, visibleStart(text, 300)));
    button.addEventListener("click", () => running || answer(text));
    return button;
  });
  byId("examples").replaceChildren(...buttons);
}

function onKey(event) {
  const isField = event.target.closest("input, textarea, select") !== null;
  const isOpen = document.querySelector("dialog[open]") !== null;
  if (event.key === "Escape" && !isOpen && running) {
    event.preventDefault();
    stop();
  }
  if (isField || isOpen || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "?") byId("help").showModal();
  if (event.key === "/") {
    event.preventDefault();
    byId("question").focus();
  }
}

function setUpDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      // The dialog itself is hit only outside of what it contains: on its backdrop or its padding.
      const { left, right, top, bottom } = dialog.getBoundingClientRect();
      const isAcross = event.clientX >= left && event.clientX <= right;
      const isInside = isAcross && event.clientY >= top && event.clientY <= bottom;
      if (event.target === dialog && !isInside) dialog.close();
    });
  }
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    byId("key").close("given");
  });
}

function setUp() {
  setUpTheme(byId("theme"));
  setUpDialogs();
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  byId("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  byId("question").addEventListener("input", fitQuestion);
  byId("stop").addEventListener("click", stop);
  byId("new").addEventListener("click", () => openConversation());
  byId("open-history").addEventListener("click", showHistory);
  byId("open-help").addEventListener("click", () => byId("help").showModal());
  byId("delete-all").addEventListener("click", () => forget(null));
  document.addEventListener("keydown", onKey);
  window.addEventListener("pagehide", () => keep(conversation));
  window.addEventListener("scroll", () => {
    const left = document.documentElement.scrollHeight - window.innerHeight - window.scrollY;
    stickToEnd = left < 120;
  });
  const current = listConversations().find(({ id }) => id === sessionStorage.getItem(CURRENT_KEY));
  if (current) openConversation(current);
  byId("question").focus();
  loadModel();
}

setUp();
