// Conversations kept in the browser's storage, newest first, bounded in number and size.

const CONVERSATIONS_KEY = "rsearch.conversations";
const MOST_CONVERSATIONS = 50;
const MOST_CHARACTERS = 2_000_000;

/** The stored conversations `{id, title, at, turns}`; entries of another form are left out. */
export function listConversations() {
  try {
    const stored = JSON.parse(localStorage.getItem(CONVERSATIONS_KEY) ?? "[]");
    return Array.isArray(stored) ? stored.filter(isConversation) : [];
  } catch {
    return [];
  }
}

function isConversation(entry) {
  return typeof entry?.id === "string" && Array.isArray(entry.turns) && entry.turns.every(isTurn);
}

function isTurn(turn) {
  const texts = [turn?.question, turn?.answer, turn?.askedAs ?? "", turn?.note ?? ""];
  return (
    texts.every((text) => typeof text === "string") &&
    ["done", "stopped", "failed"].includes(turn.outcome) &&
    allOf(turn.steps, (step) => (step.kind === "thought" ? typeof step.text === "string" : isPlan(step))) &&
    (turn.final === null || isFinal(turn.final)) &&
    (turn.error === null || typeof turn.error?.title === "string")
  );
}

function isPlan(step) {
  return (
    step.kind === "plan" &&
    allOf(step.nodes, (node) => typeof node.label === "string") &&
    allOf(step.edges, Array.isArray) &&
    Array.isArray(step.problems) &&
    allOf(step.results, (result) => allOf(result.passages, () => true))
  );
}

function isFinal(final) {
  const sentences = final?.paragraph?.sentences ?? [];
  return allOf(final?.citations, () => true) && allOf(sentences, ({ numbers }) => Array.isArray(numbers));
}

/** Whether a value is a list of objects that all pass a check. */
function allOf(list, check) {
  return Array.isArray(list) && list.every((one) => typeof one === "object" && one !== null && check(one));
}

/**
 * Stores a conversation in front of the others; the oldest ones go when there is no room.
 *
 * @returns Whether it could be stored.
 */
export function saveConversation(conversation) {
  let kept = [conversation, ...listConversations().filter(({ id }) => id !== conversation.id)];
  kept = kept.slice(0, MOST_CONVERSATIONS);
  while (kept.length) {
    const text = JSON.stringify(kept);
    try {
      if (text.length <= MOST_CHARACTERS) {
        localStorage.setItem(CONVERSATIONS_KEY, text);
        return true;
      }
    } catch (error) {
      if (error.name !== "QuotaExceededError") return false;
    }
    if (kept.length > 1) kept.pop();
    else if (kept[0].turns.length > 1) kept = [{ ...kept[0], turns: kept[0].turns.slice(1) }];
    else return false;
  }
  return false;
}

export function deleteConversation(id) {
  const kept = listConversations().filter((conversation) => conversation.id !== id);
  localStorage.setItem(CONVERSATIONS_KEY, JSON.stringify(kept));
}

export function deleteAllConversations() {
  localStorage.removeItem(CONVERSATIONS_KEY);
}
