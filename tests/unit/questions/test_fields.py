"""Fields of a question under the names that datasets give them."""

from __future__ import annotations

from typing import Any

import pytest

from rsearch_cli.errors import DataMalformed
from rsearch_cli.questions.contexts import collect_passages, find_paragraphs
from rsearch_cli.questions.fields import parse_question
from rsearch_cli.questions.rows import Row
from rsearch_cli.types import Passage

ASKED = {"question": "Who?"}
SEARCH_R1 = (
    "Answer the given question. Search by <search> query </search>, and answer inside <answer> and "
    "</answer>, as in <answer> Beijing </answer>. Question: Who?\n"
)


def turns(*contents: str, keys: tuple[str, str] = ("role", "content")) -> list[dict[str, str]]:
    roles = ("user", "assistant") if keys[0] == "role" else ("human", "gpt")
    return [
        dict(zip(keys, (roles[n % 2], content), strict=True)) for n, content in enumerate(contents)
    ]


def row(**fields: Any) -> Row:
    return Row("f", "line 3", fields)


@pytest.mark.parametrize(
    ("fields", "answers"),
    [
        (ASKED | {"answer": " Ann "}, ("Ann",)),
        (ASKED | {"answers": ["Ann", "Anne", "Ann", ""]}, ("Ann", "Anne")),
        (ASKED | {"golden_answers": ["Ann"]}, ("Ann",)),
        (ASKED | {"answer": "Ann", "answer_aliases": ["Anne"]}, ("Ann", "Anne")),
        (ASKED | {"answer": "Ann", "answer_alias": "Anne"}, ("Ann", "Anne")),
        (ASKED | {"answer": "Ann", "aliases": ["Anne"]}, ("Ann", "Anne")),
        (ASKED | {"answer": "Ann", "normalized_aliases": ["ann"]}, ("Ann", "ann")),
        (ASKED | {"answer": "Ann", "answers": ["Ann", "Anne"]}, ("Ann", "Anne")),
        (
            ASKED
            | {"answer": {"value": "Ann", "aliases": ["Anne"], "normalized_aliases": ["ann"]}},
            ("Ann", "Anne", "ann"),
        ),
        (
            {"Question": "Who?", "Answer": {"Value": "Ann", "NormalizedAliases": ["ann"]}},
            ("Ann", "ann"),
        ),
        (ASKED | {"answers": {"text": ["Ann", "Anne"], "answer_start": [0, 1]}}, ("Ann", "Anne")),
        (ASKED | {"answers": [{"text": "Ann", "answer_start": 0}]}, ("Ann",)),
        (ASKED | {"possible_answers": '["Ann", "Anne"]'}, ("Ann", "Anne")),
        (ASKED | {"answer": "['Ann', 'Anne']"}, ("Ann", "Anne")),
        (ASKED | {"answer": "[1, 2]"}, ("[1, 2]",)),
        (ASKED | {"answer": 1984}, ("1984",)),
        (ASKED | {"answer": 1984.0}, ("1984",)),
        (ASKED | {"answer": 3.5}, ("3.5",)),
        (ASKED | {"answer": True}, ("yes",)),
        (ASKED | {"answer": False}, ("no",)),
        ({"problem": "Who?", "target": "Ann"}, ("Ann",)),
        ({"query": "Who?", "ground_truth": ["Ann"]}, ("Ann",)),
        ({"instruction": "Who?", "input": "", "output": "Ann"}, ("Ann",)),
        ({"messages": turns("Who?", "Ann")}, ("Ann",)),
        (
            {"messages": [{"role": "system", "content": "Be brief."}, *turns("Who?", "Ann")]},
            ("Ann",),
        ),
        ({"conversations": turns("Who?", "Ann", keys=("from", "value"))}, ("Ann",)),
        ({"prompt": turns("Who?"), "completion": [turns("", "Ann")[1]]}, ("Ann",)),
        (
            {
                "prompt": turns(SEARCH_R1),
                "reward_model": {"style": "rule", "ground_truth": {"target": ["Ann", "Anne"]}},
            },
            ("Ann", "Anne"),
        ),
        ({"prompt": "Who?", "reward_model": {"ground_truth": "Ann"}}, ("Ann",)),
        (ASKED | {"choices": ["Ann", "Bo"], "answer": "Ann"}, ("Ann",)),
        (ASKED | {"A": "Ann", "B": "Bo", "answer": "Bo"}, ("Bo",)),
        (ASKED | {"answer": "3 + 4 = <<3+4=7>>7.\n#### 7"}, ("7",)),
        (ASKED | {"answer": "The sum is $\\boxed{7}$."}, ("7",)),
        (ASKED | {"answer": "<think> x </think> <answer> Ann </answer>"}, ("Ann",)),
        (ASKED | {"answer": "1984.0"}, ("1984.0", "1984")),
        (ASKED | {"answer": "Ann", "ground_truth": ["ann", "Anne"]}, ("Ann",)),
        (ASKED | {"answer": "Ann", "answerable": True}, ("Ann",)),
    ],
)
def test_questions_and_answers_are_read_from_all_their_names(
    fields: dict[str, Any], answers: tuple[str, ...]
) -> None:
    question = parse_question(row(**fields))
    assert (question.text, question.answers) == ("Who?", answers)


def test_what_was_read_is_no_metadata() -> None:
    fields = {
        "qid": 7.0, "instruction": "Sum up.", "input": "A text.", "output": "A",
        "difficulty": "Hard", "aliases": ["a"], "context": "x", "split": "train",
        "url": "u", "type": 2,
    }  # fmt: skip
    question = parse_question(row(**fields))
    assert (question.id, question.text) == ("7", "Sum up.\nA text.")
    assert (question.level, question.type, question.metadata) == ("hard", "2", {"url": "u"})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            ASKED | {"answer": None},
            "'answer' is null or NaN; give it a value, or remove",
        ),
        (ASKED | {"reply": "Ann"}, "'answer' is missing; its fields are question, reply: rename"),
        (ASKED | {"answers": []}, "'answers' contains no answer; remove questions without answers"),
        (
            ASKED | {"answer": "['Ann' 'Anne']"},
            "'answer' is a printed NumPy array, \"['Ann' 'Anne']\"; use",
        ),
        (
            ASKED | {"choices": ["Ann", "Bo"], "answer": 1},
            "'answer' is \"1\", none of the texts in '",
        ),
        (
            ASKED | {"options": {"A": "Ann", "B": "Bo"}, "answer": "B"},
            "'answer' is \"B\", none of th",
        ),
        (
            ASKED | {"A": "Ann", "B": "Bo", "answer": "B"},
            "'answer' is \"B\", none of the texts in 'A'",
        ),
        (
            ASKED | {"option_a": "Ann", "option_b": "Bo", "answer": 1},
            "'answer' is \"1\", none of the texts in 'option_a'",
        ),
        # Ragas: what a model answered, and what is right.
        (
            ASKED | {"answer": "Some model's", "ground_truth": "Ann"},
            "'answer' is \"Some model's\" but 'ground_truth' is \"Ann\"; remove the one that",
        ),
        (ASKED | {"answer": "Ann", "answerable": False}, "'answer' contains no answer; remove"),
        (
            ASKED | {"answer": "Ann", "is_impossible": True},
            "'answer' contains no answer; remove",
        ),
        (ASKED | {"answer": "\u200b"}, "'answer' contains no answer; remove"),
        ({"question": "\u2060\u200b", "answer": "x"}, "'question' is an empty question"),
        (
            {"messages": turns("Who?", "Ann", "And?", "Bo")},
            "'messages' has several messages of the user",
        ),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            '\'messages\': {"role": "tool", "content"',
        ),
        ({"messages": turns("Who?")}, "'messages' contains no answer"),
        (
            {"prompt": "Answer in <answer>", "answer": "Ann"},
            "'prompt' contains instructions but does",
        ),
        (
            {"passage": "x", "answer": "Ann"},
            "'question' is missing; its fields are passage, answer: p",
        ),
        (
            {"Who?": "Where?", "Ann": "Rome"},
            "'question' is missing; its fields are Who?, Ann: none",
        ),
        ({"id": {}, **ASKED, "answer": "Ann"}, "'id' must be a string, not {}"),
    ],
)
def test_what_is_ambiguous_or_missing_is_named(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(DataMalformed) as caught:
        parse_question(row(**fields))
    assert str(caught.value).startswith(f"f, line 3: {told}")


@pytest.mark.parametrize(
    "fields",
    [
        {"context": [["Ann", ["Ann is.", " So."]]]},
        {"context": {"title": ["Ann"], "sentences": [["Ann is.", " So."]]}},
        {"metadata": {"context": {"title": ["Ann"], "content": [["Ann is.", " So."]]}}},
        {"title": "Ann", "context": "Ann is. So."},
        {"paragraphs": [{"idx": 0, "title": "Ann", "paragraph_text": "Ann is. So."}]},
        {"ctxs": [{"id": "1", "title": "Ann", "text": "Ann is. So.", "score": 1}]},
    ],
)
def test_the_paragraphs_of_a_row_are_its_corpus(fields: dict[str, Any]) -> None:
    found = find_paragraphs(row(**fields))
    assert found is not None
    assert list(collect_passages([found])) == [Passage("Ann", "Ann", "Ann is. So.")]


def test_paragraphs_without_a_title_are_numbered() -> None:
    found = find_paragraphs(row(contexts=["A.", "B."]))
    assert found is not None
    assert list(collect_passages([found])) == [
        Passage("paragraph", "", "A."), Passage("paragraph#2", "", "B."),
    ]  # fmt: skip


@pytest.mark.parametrize("fields", [{}, {"context": None}, {"context": " "}, {"metadata": [1]}])
def test_a_row_may_have_no_paragraphs(fields: dict[str, Any]) -> None:
    assert find_paragraphs(row(**fields)) is None


def test_supporting_titles_can_stand_in_for_an_answer() -> None:
    question = parse_question(row(question="Who?", supporting_titles=["Ann"]))
    assert (question.answers, question.supporting_titles) == ((), ("Ann",))
    with pytest.raises(DataMalformed, match="'answer' contains no answer"):
        parse_question(row(question="Who?", answer="", supporting_titles=["Ann"]))
    with pytest.raises(DataMalformed, match="'answer' is null"):
        parse_question(row(question="Who?", answer=None, supporting_titles=["Ann"]))
    with pytest.raises(DataMalformed, match="'answer' is missing"):
        parse_question(row(question="Who?", supporting_titles=[]))
