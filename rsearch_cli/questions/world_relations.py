"""Relations and question types of the fictional world.

Passages about a relation are in one source only (`General`, `News` or `Academy`), so a plan has to
route its queries. Gold queries use the words of the passages, as a lexical index requires.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Relation:
    """A kind of fact.

    Attributes:
        source: The source that its passages are in.
        subject: Kind of entity.
        object: Kind of entity, or `year`.
        follow_up: Gold query of a node whose subject comes from its parent's results.
        tellings: Templates of passages.
    """

    source: str
    subject: str
    object: str
    follow_up: str
    tellings: tuple[str, str]

    @property
    def query(self) -> str:
        """Gold query, given the subject."""
        return f"{{s}} {self.follow_up}"


RELATIONS: dict[str, Relation] = {
    "birthplace": Relation(
        "General",
        "person",
        "city",
        "born",
        ("{s} was born in {o}.", "{s} was born and raised in {o}."),
    ),
    "country": Relation(
        "General",
        "city",
        "country",
        "country",
        ("{s} is a city in the country of {o}.", "{s} is a town in the country of {o}."),
    ),
    "seat": Relation(
        "General",
        "company",
        "city",
        "based",
        ("{s} is a company based in {o}.", "{s} is a firm based in {o}."),
    ),
    "founder": Relation(
        "General",
        "company",
        "person",
        "founded",
        ("{s} was founded by {o}.", "{s} was planned and founded by {o}."),
    ),
    "year": Relation(
        "General",
        "company",
        "year",
        "opened year",
        ("{s} opened in the year {o}.", "{s} opened its doors in the year {o}."),
    ),
    "author": Relation(
        "General",
        "work",
        "person",
        "author",
        ("{s} is a novel by the author {o}.", "{s} is a play by the author {o}."),
    ),
    "chief": Relation(
        "News",
        "company",
        "person",
        "chief",
        ("{s} has named {o} as its chief.", "{s} is now led by its new chief {o}."),
    ),
    "mayor": Relation(
        "News",
        "city",
        "person",
        "mayor",
        ("{s} has elected {o} as its mayor.", "{s} is now led by its new mayor {o}."),
    ),
    "employer": Relation(
        "Academy",
        "person",
        "university",
        "professor",
        ("{s} is a professor at {o}.", "{s} is a professor of physics at {o}."),
    ),
    "discoverer": Relation(
        "Academy",
        "phenomenon",
        "person",
        "described",
        ("{s} was described by {o}.", "{s} was first described by {o}."),
    ),
}


@dataclass(frozen=True, slots=True)
class QuestionType:
    """A kind of question: a chain of relations from a given subject to the answer.

    A comparison applies a single relation to two subjects, `{a}` and `{b}`.
    """

    level: str
    chain: tuple[str, ...]
    phrasings: tuple[str, str]
    comparison: bool = False


# Chain of relations, joined by hyphens, to the phrasings of its questions.
_CHAINS = {
    "birthplace": ("Where was {s} born?", "In which city was {s} born?"),
    "country": ("Which country is {s} in?", "In which country is {s}?"),
    "seat": ("Where is {s} based?", "In which city is {s} based?"),
    "founder": ("Who founded {s}?", "Who was the founder of {s}?"),
    "author": ("Who wrote {s}?", "Who is the author of {s}?"),
    "chief": ("Who is the chief of {s}?", "Who now leads {s}?"),
    "mayor": ("Who is the mayor of {s}?", "Who was elected mayor of {s}?"),
    "employer": ("Where does {s} teach?", "Where is {s} a professor?"),
    "discoverer": ("Who described {s}?", "Who first described {s}?"),
    "author-birthplace": (
        "Where was the author of {s} born?",
        "In which city was the author of {s} born?",
    ),
    "founder-birthplace": (
        "Where was the founder of {s} born?",
        "In which city was the founder of {s} born?",
    ),
    "seat-country": ("Which country is {s} based in?", "In which country is {s} based?"),
    "chief-birthplace": (
        "Where was the chief of {s} born?",
        "In which city was the chief of {s} born?",
    ),
    "seat-mayor": (
        "Who is the mayor of the city where {s} is based?",
        "Who was elected mayor of the city where {s} is based?",
    ),
    "discoverer-employer": (
        "Where does the scholar who described {s} teach?",
        "Where is the scholar who described {s} a professor?",
    ),
    "author-birthplace-country": (
        "In which country was the author of {s} born?",
        "Which country does the author of {s} come from?",
    ),
    "founder-birthplace-mayor": (
        "Who is the mayor of the city where the founder of {s} was born?",
        "Who was elected mayor of the city where the founder of {s} was born?",
    ),
    "discoverer-birthplace-country": (
        "In which country was the scholar who described {s} born?",
        "Which country does the scholar who described {s} come from?",
    ),
}
_LEVELS = ("easy", "medium", "hard")

QUESTION_TYPES: dict[str, QuestionType] = {
    key: QuestionType(_LEVELS[key.count("-")], tuple(key.split("-")), phrasings)
    for key, phrasings in _CHAINS.items()
} | {
    "older-company": QuestionType(
        "hard",
        ("year",),
        ("Which company is older, {a} or {b}?", "Which opened first, {a} or {b}?"),
        comparison=True,
    ),
    "same-birthplace": QuestionType(
        "hard",
        ("birthplace",),
        ("Were {a} and {b} born in the same city?", "Do {a} and {b} have the same place of birth?"),
        comparison=True,
    ),
}
