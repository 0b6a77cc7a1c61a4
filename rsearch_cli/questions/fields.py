"""Parse questions from rows, whatever their datasets call the fields.

The first matching name of each list is used; case, blanks, hyphens and underscores are ignored. An
ambiguous row is an error, never a guess.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rsearch_cli.protocol.characters import flatten
from rsearch_cli.questions.contexts import CONTEXTS, TEXT, read_metadata, read_supporting_titles
from rsearch_cli.questions.rows import Row, require_unique, shorten
from rsearch_cli.types import Question

QUESTION = (
    *("question", "query", "problem", "instruction", "prompt", "input"),
    *("messages", "conversations", "conversation"),
)
ANSWER = (
    *("answer", "answers", "golden_answers", "gold_answers", "golden_answer", "gold_answer"),
    *("ground_truth", "reference_answers", "reference_answer", "correct_answer", "references"),
    *("possible_answers", "expected_answer", "target", "targets", "output", "response"),
    *("completion", "reward_model", "messages", "conversations", "conversation"),
)
ALIASES = (
    *("answer_aliases", "answer_alias", "aliases", "alias", "normalized_aliases", "answers"),
    *("golden_answers", "gold_answers", "possible_answers", "acceptable_answers"),
    "alternative_answers",
)
"""Fields with further accepted answers."""
ID = ("id", "_id", "qid", "question_id", "query_id", "uid", "uuid")
LEVEL = ("level", "difficulty")
CHOICES = ("choices", "options")

# Names that always mean a gold answer; in Ragas, `answer` is the answer of a model.
_GOLD = (
    *("ground_truth", "ground_truths", "reference_answer", "reference_answers"),
    *("correct_answer", "expected_answer", "gold_answer", "golden_answer"),
)
_OPTION = re.compile(r"(option|choice|opt)?([a-e])", re.ASCII)
# Fields and values that mark unanswerable questions (SQuAD 2.0, MuSiQue).
_UNANSWERABLE = {"is_impossible": True, "answerable": False}
# The final answer in solutions of GSM8K and MATH, and in our own transcripts.
_FINAL = (
    re.compile(r"####\s*(?P<answer>[^\n]+?)\s*\Z"),
    re.compile(r"\$?\\boxed\{(?P<answer>[^{}]+)\}\$?\.?\Z"),
    re.compile(r"<answer>(?P<answer>[^<>]+)</answer>\Z"),
)
_WHOLE_FLOAT = re.compile(r"-?\d+\.0")

_TITLES = ("supporting_titles", "supporting_facts")
# The answer inside an object: TriviaQA, SQuAD, chat messages, Search-R1.
_IN_OBJECT = ("value", "text", "content", "target", "ground_truth", "answer")
_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
# NumPy prints an array of strings without commas, which Python would concatenate.
_PRINTED_ARRAY = re.compile(r"""['"]\s+['"]""")


def parse_question(row: Row) -> Question:
    """Parse one row; without an id, it is named after its location (`line-3`).

    Raises:
        DataMalformed: It has no question, neither an answer nor supporting titles, or is ambiguous.
    """
    text, titles = read_question(row), read_supporting_titles(row)
    # Searches can be trained and measured by the supporting titles alone.
    answers = () if titles and not row.names(ANSWER) else read_answers(row)
    metadata = read_metadata(row)
    level = _label(row, LEVEL, metadata)
    used = {
        *(name for names in (ID, QUESTION, LEVEL, ("type",)) if (name := row.find(names)[0])),
        *(name for name in (row.find(ANSWER)[0], *ALIASES) if name),
        *(*CONTEXTS, *_TITLES, "split"),
    }
    if row.find(QUESTION)[0] == "instruction":
        used.add("input")
    return Question(
        id=_read_id(row),
        text=text,
        answers=answers,
        type=_label(row, ("type",), metadata),
        level=level.lower() if level.lower() in ("easy", "medium", "hard") else level,
        supporting_titles=titles,
        metadata=row.extras(used),
    )


def parse_questions(rows: Sequence[Row]) -> list[Question]:
    """Parse all rows of a file.

    Raises:
        DataMalformed: A row cannot be used, or two have the same id.
    """
    questions = [parse_question(row) for row in rows]
    require_unique(zip((q.id for q in questions), rows, strict=True))
    return questions


def read_question(row: Row) -> str:
    """Return the question of a row.

    Raises:
        DataMalformed: There is none, or more than one.
    """
    name, value = row.find(QUESTION)
    if name is None:
        raise _missing(row, "question", QUESTION)
    if isinstance(value, list):
        text = _read_turns(row, name, value).get("user", "")
    else:
        text = row.text(name)
    if not flatten(text):
        raise row.malformed(f"'{name}' is an empty question")
    if name == "instruction" and isinstance(row.fields.get("input"), str):
        text = f"{text}\n{row.fields['input']}".strip()
    return _without_instructions(row, name, text)


def read_answers(row: Row) -> tuple[str, ...]:
    """Return the accepted answers of a row, including aliases, each once.

    Raises:
        DataMalformed: There is none, or a value cannot be an answer.
    """
    name, value = row.find(ANSWER)
    if name is None:
        raise _missing(row, "answer", ANSWER)
    if name in ("messages", "conversations", "conversation"):
        texts = [_read_turns(row, name, value).get("assistant", "")]
    else:
        texts = _texts(row, name, value)
    for alias in ALIASES:
        if alias != name and row.fields.get(alias) is not None:
            texts += _texts(row, alias, row.fields[alias])
    answers = tuple(dict.fromkeys(_final_answer(text) for text in texts if flatten(text)))
    if not answers or any(row.fields.get(key) is mark for key, mark in _UNANSWERABLE.items()):
        raise row.malformed(f"'{name}' contains no answer; remove questions without answers")
    _check_choices(row, name, answers)
    _check_gold(row, name, answers)
    # In a table column with gaps, 1984 becomes 1984.0.
    whole = [text[:-2] for text in answers if _WHOLE_FLOAT.fullmatch(text)]
    return tuple(dict.fromkeys([*answers, *whole]))


def _final_answer(text: str) -> str:
    """Return the final answer of a solution or transcript; any other text unchanged."""
    found = next((found for form in _FINAL if (found := form.search(text.strip()))), None)
    return found["answer"].strip() if found else text


def _check_gold(row: Row, name: str, answers: Sequence[str]) -> None:
    """Refuse an answer that differs from the gold answers; it is probably a model's."""
    for key, value in ((key, row.fields.get(key)) for key in _GOLD if key != name):
        if value and not set(map(_fold, _texts(row, key, value))) & set(map(_fold, answers)):
            raise row.malformed(
                f"'{name}' is {shorten(answers[0])} but '{key}' is {shorten(value)}; remove the "
                "one that is not a gold answer, or list both as 'answers'"
            )


def _fold(text: str) -> str:
    return " ".join(_final_answer(text).casefold().split())


def _texts(row: Row, name: str, value: Any) -> list[str]:
    """Return the answers in a value: a text, number or boolean, or an object or list of these."""
    if isinstance(value, str):
        listed = _list_in_text(row, name, value)
        if listed is None:
            return [value.strip()]
        value = listed
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, int | float):
        return [_number(value)]
    if isinstance(value, list) and not any(isinstance(item, list) for item in value):
        return [t for item in value if item is not None for t in _texts(row, name, item)]
    if isinstance(value, dict):
        inner = Row(row.origin, row.place, value)
        keys = [inner.find(names)[0] for names in (_IN_OBJECT, *((alias,) for alias in ALIASES))]
        if keys[0] is not None:
            return [t for key in filter(None, keys) for t in _texts(row, name, value[key])]
    raise row.malformed(f"'{name}' must be a string or a list of strings, not {shorten(value)}")


def _list_in_text(row: Row, name: str, text: str) -> list[str] | None:
    """Return a list that a cell contains in JSON or Python syntax; None for any other text."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            if parse is ast.literal_eval and _PRINTED_ARRAY.search(text):
                raise row.malformed(
                    f"'{name}' is a printed NumPy array, {shorten(text)}; use a JSON list"
                )
            return value
    return None


def _read_turns(row: Row, name: str, turns: Any) -> dict[str, str]:
    """Return the user's and the assistant's turn of a single-turn conversation, by role.

    Raises:
        DataMalformed: It is not a conversation, or has several turns.
    """
    found: dict[str, str] = {}
    for turn in turns if isinstance(turns, list) else ():
        fields = turn if isinstance(turn, dict) else {}
        role = _ROLES.get(str(fields.get("role", fields.get("from"))))
        content = fields.get("content", fields.get("value"))
        if role is None or not isinstance(content, str):
            raise row.malformed(
                f"'{name}': {shorten(turn)} is not a text message of a user or assistant"
            )
        if role in found and role != "system":
            raise row.malformed(
                f"'{name}' has several messages of the {role}; a row must be one question and "
                "its answer"
            )
        found[role] = content.strip()
    return found


def _without_instructions(row: Row, name: str, text: str) -> str:
    """Return the question at the end of a Search-R1 prompt (`Question: …`)."""
    if not any(tag in text for tag in ("<answer>", "<search>")):
        return text
    question = text.rpartition("Question:")[2].strip() if "Question:" in text else ""
    if not question or "<" in question:
        raise row.malformed(
            f"'{name}' contains instructions but does not end with 'Question: …'; add the bare "
            "question as 'question'"
        )
    return question


def _check_choices(row: Row, name: str, answers: Sequence[str]) -> None:
    """Refuse a choice's number or letter as an answer, because the model never sees the choices."""
    key, choices = row.find(CHOICES)
    if isinstance(choices, dict):
        choices = choices.get("text", list(choices.values()))
    columns = {
        found[2]: column
        for column in row.fields
        if (found := _OPTION.fullmatch(re.sub(r"[\s_-]+", "", column).lower()))
    }
    if key is None and {"a", "b"} <= columns.keys():
        key, choices = columns["a"], [row.fields[column] for column in columns.values()]
    if isinstance(choices, list) and choices and not set(answers) & {str(c) for c in choices}:
        raise row.malformed(
            f"'{name}' is {shorten(answers[0])}, none of the texts in '{key}', and the model never "
            f"sees the choices; put the text of the right one into '{name}', or remove '{key}'"
        )


def _read_id(row: Row) -> str:
    name, value = row.find(ID)
    if name is None:
        return row.place.replace(" ", "-")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    return row.text(name)


def _label(row: Row, names: Sequence[str], metadata: Mapping[str, Any]) -> str:
    """Return a type or level, which FlashRAG stores in `metadata`; "" if there is none."""
    name, value = row.find(names)
    if name is None:
        inner = Row(row.origin, row.place, dict(metadata)).find(names)[1]
        return inner if isinstance(inner, str) else ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    return row.text(name)


def _number(value: float) -> str:
    """Return a number as text; in a table column with gaps, 1984 becomes 1984.0."""
    return str(int(value)) if float(value).is_integer() else str(value)


def _missing(row: Row, what: str, names: Sequence[str]) -> Exception:
    if empty := [name for name in names if name in row.fields]:
        return row.malformed(f"'{empty[0]}' is null or NaN; give it a value, or remove the row")
    fields = ", ".join(map(str, row.fields))
    remedy = f"rename the one with the {what} to '{what}' (other names: docs/data.md)"
    if row.find((*QUESTION, *ANSWER, *ID, *TEXT))[0] is None:
        remedy = "none of them is known (see docs/data.md); a table needs a header line"
    elif what == "question" and row.find(TEXT)[0]:
        remedy = "passages belong in search.sources.<name>.corpus, see `rsearch index --help`"
    return row.malformed(f"'{what}' is missing; its fields are {fields or 'none'}: {remedy}")
