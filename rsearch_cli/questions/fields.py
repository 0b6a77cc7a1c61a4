"""The names that people give to the fields of a question, and how each is read.

A row is read by the first name of a list that it has; case, blanks, hyphens and underscores in a
name do not count. A row that could mean two things is an error, never a guess.
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
"""Further accepted answers, beside those under the first name of `ANSWER`."""
ID = ("id", "_id", "qid", "question_id", "query_id", "uid", "uuid")
LEVEL = ("level", "difficulty")
CHOICES = ("choices", "options")

# Gold answers under names that a model's own answer does not have (Ragas calls that one `answer`).
_GOLD = (
    *("ground_truth", "ground_truths", "reference_answer", "reference_answers"),
    *("correct_answer", "expected_answer", "gold_answer", "golden_answer"),
)
_OPTION = re.compile(r"(option|choice|opt)?([a-e])", re.ASCII)
# Marks of a question that has no answer (SQuAD 2.0, MuSiQue), and the value that says so.
_UNANSWERABLE = {"is_impossible": True, "answerable": False}
# How GSM8K and MATH end a solution, and how a transcript of ours marks its answer.
_FINAL = (
    re.compile(r"####\s*(?P<answer>[^\n]+?)\s*\Z"),
    re.compile(r"\$?\\boxed\{(?P<answer>[^{}]+)\}\$?\.?\Z"),
    re.compile(r"<answer>(?P<answer>[^<>]+)</answer>\Z"),
)
_WHOLE_FLOAT = re.compile(r"-?\d+\.0")

_TITLES = ("supporting_titles", "supporting_facts")
# Where an object keeps an answer: TriviaQA, SQuAD, chat messages, Search-R1.
_IN_OBJECT = ("value", "text", "content", "target", "ground_truth", "answer")
_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
# How NumPy prints an array of texts; Python would read the two as one.
_PRINTED_ARRAY = re.compile(r"""['"]\s+['"]""")


def parse_question(row: Row) -> Question:
    """Read one row of any of the forms; without an id it is named after its place (`line-3`).

    Raises:
        DataMalformed: It has no question or no answer, or a field cannot be read in one way only.
    """
    text, answers = read_question(row), read_answers(row)
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
        supporting_titles=read_supporting_titles(row),
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
    """What a row asks.

    Raises:
        DataMalformed: It asks nothing, or more than one thing.
    """
    name, value = row.find(QUESTION)
    if name is None:
        raise _missing(row, "question", QUESTION)
    if isinstance(value, list):
        text = _read_turns(row, name, value).get("user", "")
    else:
        text = row.text(name)
    if not flatten(text):
        raise row.malformed(f"'{name}' asks nothing")
    if name == "instruction" and isinstance(row.fields.get("input"), str):
        text = f"{text}\n{row.fields['input']}".strip()
    return _without_instructions(row, name, text)


def read_answers(row: Row) -> tuple[str, ...]:
    """The accepted answers of a row, aliases included, each once.

    Raises:
        DataMalformed: There is none, or a value is no answer.
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
        raise row.malformed(f"'{name}' holds no answer; leave out questions that have none")
    _check_choices(row, name, answers)
    _check_gold(row, name, answers)
    # A table holds 1984 as 1984.0 where its column has gaps.
    whole = [text[:-2] for text in answers if _WHOLE_FLOAT.fullmatch(text)]
    return tuple(dict.fromkeys([*answers, *whole]))


def _final_answer(text: str) -> str:
    """The answer that a solution or a transcript ends in; any other text as it is."""
    found = next((found for form in _FINAL if (found := form.search(text.strip()))), None)
    return found["answer"].strip() if found else text


def _check_gold(row: Row, name: str, answers: Sequence[str]) -> None:
    """Refuse a row whose answer is none of its gold answers: it is probably some model's."""
    for key, value in ((key, row.fields.get(key)) for key in _GOLD if key != name):
        if value and not set(map(_fold, _texts(row, key, value))) & set(map(_fold, answers)):
            raise row.malformed(
                f"'{name}' is {shorten(answers[0])} and '{key}' is {shorten(value)}; leave out the "
                "one that is no accepted answer, or list both as 'answers'"
            )


def _fold(text: str) -> str:
    return " ".join(_final_answer(text).casefold().split())


def _texts(row: Row, name: str, value: Any) -> list[str]:
    """The answers in a value: text, number, yes or no, an object of these, or a list of them."""
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
    raise row.malformed(f"'{name}' must be a text or a list of texts, not {shorten(value)}")


def _list_in_text(row: Row, name: str, text: str) -> list[str] | None:
    """The texts of a list that was written into a cell as JSON or by Python; None for any other."""
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
                    f"'{name}' is a printed array, {shorten(text)}; write a JSON list"
                )
            return value
    return None


def _read_turns(row: Row, name: str, turns: Any) -> dict[str, str]:
    """The user's and the assistant's turn of a conversation of one question.

    Raises:
        DataMalformed: It is no conversation, or one of several turns.
    """
    found: dict[str, str] = {}
    for turn in turns if isinstance(turns, list) else ():
        fields = turn if isinstance(turn, dict) else {}
        role = _ROLES.get(str(fields.get("role", fields.get("from"))))
        content = fields.get("content", fields.get("value"))
        if role is None or not isinstance(content, str):
            raise row.malformed(
                f"'{name}': {shorten(turn)} is no turn of a user or an assistant in text"
            )
        if role in found and role != "system":
            raise row.malformed(
                f"'{name}' has several turns of the {role}; a row holds one question and its answer"
            )
        found[role] = content.strip()
    return found


def _without_instructions(row: Row, name: str, text: str) -> str:
    """The question in a prompt of Search-R1's form, which ends in `Question: …`."""
    if not any(tag in text for tag in ("<answer>", "<search>")):
        return text
    question = text.rpartition("Question:")[2].strip() if "Question:" in text else ""
    if not question or "<" in question:
        raise row.malformed(
            f"'{name}' holds instructions and no 'Question: …' at its end; add the bare question "
            "as 'question'"
        )
    return question


def _check_choices(row: Row, name: str, answers: Sequence[str]) -> None:
    """Refuse the number or letter of a choice as an answer: the model is not shown the choices."""
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
            f"'{name}' is {shorten(answers[0])}, none of the texts in '{key}', which the model is "
            f"not shown; put the text of the right one into '{name}', or leave '{key}' out"
        )


def _read_id(row: Row) -> str:
    name, value = row.find(ID)
    if name is None:
        return row.place.replace(" ", "-")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    return row.text(name)


def _label(row: Row, names: Sequence[str], metadata: Mapping[str, Any]) -> str:
    """A type or a level, which FlashRAG keeps in `metadata`; "" where there is none."""
    name, value = row.find(names)
    if name is None:
        inner = Row(row.origin, row.place, dict(metadata)).find(names)[1]
        return inner if isinstance(inner, str) else ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    return row.text(name)


def _number(value: float) -> str:
    """A number as a person writes it: a column with gaps holds 1984 as 1984.0."""
    return str(int(value)) if float(value).is_integer() else str(value)


def _missing(row: Row, what: str, names: Sequence[str]) -> Exception:
    if empty := [name for name in names if name in row.fields]:
        return row.malformed(f"'{empty[0]}' is null or NaN; give it a value, or leave the row out")
    fields = ", ".join(map(str, row.fields))
    remedy = f"rename the one that holds the {what} to '{what}' (other names: docs/data.md)"
    if row.find((*QUESTION, *ANSWER, *ID, *TEXT))[0] is None:
        remedy = "none of them is known (see docs/data.md); a table names its columns in line 1"
    elif what == "question" and row.find(TEXT)[0]:
        remedy = "passages go to search.sources.<name>.corpus, which `rsearch index` prepares"
    return row.malformed(f"'{what}' is missing; its fields are {fields or 'none'}: {remedy}")
