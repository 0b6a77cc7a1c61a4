"""Build the chat that a rollout starts from: instructions, worked examples and the question."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from rsearch_cli.protocol.plan import render_plan
from rsearch_cli.protocol.results import neutralise, render_results
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.types import NodeResult, Passage, PlanNode, Question, SearchPlan

_SYSTEM_PROMPT = """\
You answer questions by searching. Write these tags, in this order:

<think> what is asked, and what has to be looked up </think>
<search>
a search plan
</search>
<answer> the bare answer: a name, a date, a number, yes or no </answer>

After </search> the system inserts <{tag}> … </{tag}>; never write that yourself. {then}

The search plan has two lists:
Nodes: one line each, at most {max_nodes}: `label: query (source)`, the query in at most \
{max_query_words} words.
Edges: `A -> B` means that B waits for A, and that names found by A are added to B's query. \
No cycles. Leave the list empty if no query needs what another one finds.

Sources:
{sources}"""


@dataclass(frozen=True, slots=True)
class _Example:
    """A worked example with one search; `steps` are `(query, title, text)` of nodes A, B, ..."""

    question: str
    thought: str
    steps: tuple[tuple[str, str, str], ...]
    chained: bool
    answer: str


_EXAMPLES = (
    _Example(
        "In which city was the author of Dracula born?",
        "First the author of Dracula, then where that person was born.",
        (
            ("Dracula author", "Dracula", "A novel by Bram Stoker."),
            ("author birthplace", "Bram Stoker", "Irish author, born in Dublin."),
        ),
        True,
        "Dublin",
    ),
    _Example(
        "Are Paris and Lyon in the same country?",
        "Two facts that do not wait for each other: the country of Paris and that of Lyon.",
        (
            ("Paris country", "Paris", "The capital of France."),
            ("Lyon country", "Lyon", "A city in the east of France."),
        ),
        False,
        "yes",
    ),
    _Example(
        "What is the capital of the country where Nokia is based?",
        "First the country where Nokia is based, then its capital.",
        (
            ("Nokia country", "Nokia", "A company based in Finland."),
            ("capital city", "Finland", "A country in Europe; its capital is Helsinki."),
        ),
        True,
        "Helsinki",
    ),
)


def build_messages(
    question: Question, rules: ProtocolConfig, max_turns: int, forbidden: Collection[str] = ()
) -> list[dict[str, str]]:
    """Build the chat that a rollout starts from.

    Args:
        question: Its text is neutralised.
        rules: `system_prompt` replaces the built-in one; `""` omits the system message.
        max_turns: Maximum number of searches in one completion.
        forbidden: See `results.neutralise`.

    Returns:
        Messages with `role` and `content`: system message, worked examples, question.
    """
    system = rules.system_prompt
    if system is None:
        system = build_system_prompt(rules, max_turns)
    messages = [{"role": "system", "content": system}] if system else []
    for example in _EXAMPLES[: rules.example_turns]:
        messages.append({"role": "user", "content": example.question})
        messages.append({"role": "assistant", "content": _transcript(example, rules)})
    return [*messages, {"role": "user", "content": neutralise(question.text, forbidden)}]


def with_examples_in_system_prompt(rules: ProtocolConfig) -> ProtocolConfig:
    """Move the worked examples from turns of their own into the system prompt.

    The built-in prompt contains one; a recipe's own prompt is followed by all of them.
    """
    without = rules.model_copy(update={"example_turns": 0})
    if rules.system_prompt is None:
        return without
    examples = [_as_text(example, rules) for example in _EXAMPLES[: rules.example_turns]]
    parts = [rules.system_prompt, *examples] if rules.system_prompt else examples
    return without.model_copy(update={"system_prompt": "\n\n".join(parts)})


def build_system_prompt(rules: ProtocolConfig, max_turns: int) -> str:
    """Render the built-in system prompt: tags, plan format, sources and limits.

    It ends with a worked example unless the examples are turns of their own.
    """
    then = "Then answer."
    if max_turns > 1:
        then = f"Then answer, or think and search again: at most {max_turns} searches in all."
    prompt = _SYSTEM_PROMPT.format(
        tag=rules.result_tag,
        then=then,
        max_nodes=rules.max_nodes,
        max_query_words=rules.max_query_words,
        sources="\n".join(f"- {name}: {use}" for name, use in rules.sources.items()),
    )
    if rules.example_turns:
        return prompt
    return f"{prompt}\n\n{_as_text(_EXAMPLES[0], rules)}"


def _as_text(example: _Example, rules: ProtocolConfig) -> str:
    return f"Example:\n{example.question}\n{_transcript(example, rules)}"


def _transcript(example: _Example, rules: ProtocolConfig) -> str:
    """Render the transcript of an example with the functions that render real ones."""
    source = next(iter(rules.sources))
    steps = list(zip("AB", example.steps, strict=True))[: rules.max_nodes]
    results = [
        NodeResult(PlanNode(label, query, source), passages=(Passage("", title, text),))
        for label, (query, title, text) in steps
    ]
    nodes = tuple(result.node for result in results)
    plan = SearchPlan(nodes, edges=(("A", "B"),) if example.chained and len(nodes) > 1 else ())
    return (
        f"<think> {example.thought} </think>\n"
        f"<search>\n{render_plan(plan)}\n</search>"
        f"{render_results(results, rules, passage_chars=200)}"
        f"<answer> {example.answer} </answer>"
    )
