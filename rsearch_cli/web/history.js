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
  const isTurn = (turn) =>
    typeof turn?.question === "string" &&
    typeof turn.answer === "string" &&
    Array.isArray(turn.steps) &&
    turn.steps.every((step) => step?.kind === "thought" || isPlan(step));
  return typeof entry?.id === "string" && Array.isArray(entry.turns) && entry.turns.every(isTurn);
}

function isPlan(step) {
  const lists = [step?.nodes, step?.edges, step?.results, step?.problems];
  return step?.kind === "plan" && lists.every(Array.isArray) && step.results.every((r) => Array.isArray(r?.passages));
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
