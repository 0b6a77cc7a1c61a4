// One question and what the agent did about it: built from events, stored, and read back.

/**
 * @typedef Turn
 * @property question As the person wrote it.
 * @property askedAs The question that was answered in its place, or null.
 * @property steps Thoughts `{kind: "thought", text}` and plans `{kind: "plan", nodes, edges, valid,
 *   problems, results}`, in order.
 * @property answer Text so far.
 * @property final What the server said at the end (`rsearch infer --json`), or null.
 * @property outcome "running", "done", "stopped" or "failed".
 */

export function newTurn(question) {
  return {
    question,
    askedAs: null,
    note: null,
    steps: [],
    answer: "",
    final: null,
    outcome: "running",
    error: null,
  };
}

/** Changes a turn by one event. */
export function applyEvent(turn, event) {
  switch (event.type) {
    case "asked":
      turn.askedAs = event.asked_as ?? null;
      turn.note = event.note ?? null;
      break;
    case "thinking":
      addThought(turn, event.text);
      break;
    case "plan": {
      const { nodes = [], edges = [], valid = nodes.length > 0, problems = [] } = event;
      turn.steps.push({ kind: "plan", nodes, edges, valid, problems, results: [] });
      break;
    }
    case "result": {
      const plan = turn.steps.filter((step) => step.kind === "plan")[event.round];
      plan?.results.push(event);
      break;
    }
    case "answer":
      turn.answer += event.text;
      break;
    case "restarted": {
      const last = turn.steps.findLastIndex((step) => step.kind === "plan");
      turn.steps.length = last + 1;
      turn.answer = "";
      break;
    }
    case "finished":
      turn.final = event;
      turn.askedAs = event.asked_as ?? turn.askedAs;
      turn.note = event.note ?? turn.note;
      turn.answer = event.answer ?? "";
      turn.outcome = "done";
      break;
  }
}

/** Texts of a thought arrive in pieces; an empty line in front begins another thought. */
function addThought(turn, text) {
  const last = turn.steps.at(-1);
  if (last?.kind === "thought" && !text.startsWith("\n\n")) last.text += text;
  else turn.steps.push({ kind: "thought", text: text.replace(/^\n+/, "") });
}

const TURNS_SENT = 20;

/** The messages that give the agent the last turns of a conversation. */
export function messagesFor(turns, question) {
  const answered = turns.filter((turn) => turn.outcome === "done" && turn.answer).slice(-TURNS_SENT);
  return [
    ...answered.flatMap((turn) => [
      { role: "user", content: turn.question },
      { role: "assistant", content: turn.answer },
    ]),
    { role: "user", content: question },
  ];
}

const STORED = { passage: 2000, thought: 4000, answer: 20000, turn: 200_000, fallback: 200 };

/** A copy of a turn with its texts shortened to what is worth keeping. */
export function storedTurn(turn) {
  const copy = shortened(turn, STORED.passage);
  const isLong = JSON.stringify(copy).length > STORED.turn;
  return isLong ? shortened(turn, STORED.fallback) : copy;
}

function shortened(turn, passage) {
  const cut = (text, limit) => {
    const whole = String(text ?? "");
    return whole.length > limit ? `${whole.slice(0, limit).toWellFormed()}…` : whole;
  };
  const short = (found) => ({ ...found, title: cut(found.title, 300), text: cut(found.text, passage) });
  const steps = turn.steps.slice(0, 40).map((step) => {
    if (step.kind === "thought") return { kind: "thought", text: cut(step.text, STORED.thought) };
    const results = step.results.map((r) => ({ ...r, passages: r.passages.slice(0, 20).map(short) }));
    return { ...step, results };
  });
  let final = null;
  if (turn.final !== null) {
    const { plans, thinking, question, answer, ...rest } = turn.final;
    final = { ...rest, citations: (rest.citations ?? []).slice(0, 60).map(short) };
  }
  return {
    ...turn,
    question: cut(turn.question, STORED.answer),
    answer: cut(turn.answer, STORED.answer),
    steps,
    final,
    outcome: turn.outcome === "running" ? "stopped" : turn.outcome,
  };
}
