"""How many questions a corpus can answer at all, before anybody trains on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rsearch_cli.errors import DataEmpty
from rsearch_cli.search.analyzer import split_words
from rsearch_cli.search.bm25 import Bm25Index
from rsearch_cli.types import Question

_VERDICTS = (["yes"], ["no"])
_ARTICLES = {"a", "an", "the"}
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a corpus contains of some questions' evidence.

    Attributes:
        passages: Number of passages.
        questions: Number of questions.
        with_titles: Questions that name the titles of their evidence.
        all_titles: Of those, the ones all of whose titles are in the corpus.
        with_answers: Questions with an answer other than yes and no.
        answer_found: Of those, the ones with an answer whose words occur in a passage in a row,
            articles aside.
        missing_titles: Titles that are not in the corpus, most frequent first, at most ten.
    """

    passages: int
    questions: int
    with_titles: int
    all_titles: int
    with_answers: int
    answer_found: int
    missing_titles: tuple[str, ...]


def measure_coverage(
    index: Bm25Index,
    questions: Iterable[Question],
    on_read: Callable[[int], None] = lambda count: None,
) -> Coverage:
    """Look for the titles and the answers of questions in a corpus.

    Args:
        index: Index of the corpus.
        questions: The questions.
        on_read: Called after every passage with the number of passages so far.

    Raises:
        DataEmpty: The questions name neither titles nor answers.
    """
    asked = list(questions)
    answers = [list(_read_answers(question)) for question in asked]
    with_titles = sum(bool(question.supporting_titles) for question in asked)
    with_answers = sum(map(bool, answers))
    if not with_titles and not with_answers:
        raise DataEmpty("the questions name neither titles of their evidence nor answers")
    titles, found = _scan(index, answers, on_read)
    missing: Counter[str] = Counter()
    all_titles = 0
    for question in asked:
        wanted = question.supporting_titles
        absent = [title for title in wanted if " ".join(split_words(title)) not in titles]
        missing.update(absent)
        all_titles += bool(wanted) and not absent
    return Coverage(
        passages=len(index.passages),
        questions=len(asked),
        with_titles=with_titles,
        all_titles=all_titles,
        with_answers=with_answers,
        answer_found=len(found),
        missing_titles=tuple(title for title, _ in missing.most_common(_SHOWN)),
    )


def _read_answers(question: Question) -> Iterator[list[str]]:
    """Yield the words of every answer that can occur in a passage."""
    for answer in question.answers:
        words = _split(answer)
        if words and words not in _VERDICTS:
            yield words


def _scan(
    index: Bm25Index, answers: list[list[list[str]]], on_read: Callable[[int], None]
) -> tuple[set[str], set[int]]:
    """Return the titles of the passages, and the questions with an answer in one of them."""
    wanted: dict[str, list[tuple[list[str], int]]] = {}
    for number, texts in enumerate(answers):
        for words in texts:
            wanted.setdefault(words[0], []).append((words, number))
    titles: set[str] = set()
    found: set[int] = set()
    for count, passage in enumerate(index.passages, start=1):
        # With its qualifier: "Victory (1996 film)" is not "Victory (1919 film)".
        titles.add(" ".join(split_words(passage.title)))
        there = _split(f"{passage.title} {passage.text}")
        for i, word in enumerate(there):
            for words, number in wanted.get(word, ()):
                if number not in found and there[i : i + len(words)] == words:
                    found.add(number)
        on_read(count)
    return titles, found


def _split(text: str) -> list[str]:
    """Return the words of a text without articles, as answers are compared."""
    return [word for word in split_words(text) if word not in _ARTICLES]
