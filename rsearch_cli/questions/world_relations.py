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
        tellings: Templates of passages.
        query: Gold query, given the subject.
        follow_up: Gold query of a node whose subject comes from its parent's results.
    """

    source: str
    subject: str
    object: str
    tellings: tuple[str, ...]
    query: str
    follow_up: str


RELATIONS: dict[str, Relation] = {
    "birthplace": Relation(
        "General",
        "person",
        "city",
        ("{s} was born in {o}.", "{s} was born and raised in {o}."),
        "{s} born",
        "born",
    ),
    "country": Relation(
        "General",
        "city",
        "country",
        ("{s} is a city in the country of {o}.", "{s} is a town in the country of {o}."),
        "{s} country",
        "country",
    ),
    "seat": Relation(
        "General",
        "company",
        "city",
        ("{s} is a company based in {o}.", "{s} is a firm based in {o}."),
        "{s} based",
        "based",
    ),
    "founder": Relation(
        "General",
        "company",
        "person",
        ("{s} was founded by {o}.", "{s} was planned and founded by {o}."),
        "{s} founded",
        "founded",
    ),
    "year": Relation(
        "General",
        "company",
        "year",
        ("{s} opened in the year {o}.", "{s} opened its doors in the year {o}."),
        "{s} opened year",
        "opened year",
    ),
    "author": Relation(
        "General",
        "work",
        "person",
        ("{s} is a novel by the author {o}.", "{s} is a play by the author {o}."),
        "{s} author",
        "author",
    ),
    "chief": Relation(
        "News",
        "company",
        "person",
        ("{s} has named {o} as its chief.", "{s} is now led by its new chief {o}."),
        "{s} chief",
        "chief",
    ),
    "mayor": Relation(
        "News",
        "city",
        "person",
        ("{s} has elected {o} as its mayor.", "{s} is now led by its new mayor {o}."),
        "{s} mayor",
        "mayor",
    ),
    "employer": Relation(
        "Academy",
        "person",
        "university",
        ("{s} is a professor at {o}.", "{s} is a professor of physics at {o}."),
        "{s} professor",
        "professor",
    ),
    "discoverer": Relation(
        "Academy",
        "phenomenon",
        "person",
        ("{s} was described by {o}.", "{s} was first described by {o}."),
        "{s} described",
        "described",
    ),
}


@dataclass(frozen=True, slots=True)
class QuestionType:
    """A kind of question: a chain of relations from a given subject to the answer.

    A comparison applies a single relation to two subjects, `{a}` and `{b}`.
    """

    level: str
    chain: tuple[str, ...]
    phrasings: tuple[str, ...]
    comparison: bool = False


QUESTION_TYPES: dict[str, QuestionType] = {
    "birthplace": QuestionType(
        "easy", ("birthplace",), ("Where was {s} born?", "In which city was {s} born?")
    ),
    "country": QuestionType(
        "easy", ("country",), ("Which country is {s} in?", "In which country is {s}?")
    ),
    "seat": QuestionType("easy", ("seat",), ("Where is {s} based?", "In which city is {s} based?")),
    "founder": QuestionType(
        "easy", ("founder",), ("Who founded {s}?", "Who was the founder of {s}?")
    ),
    "author": QuestionType("easy", ("author",), ("Who wrote {s}?", "Who is the author of {s}?")),
    "chief": QuestionType("easy", ("chief",), ("Who is the chief of {s}?", "Who now leads {s}?")),
    "mayor": QuestionType(
        "easy", ("mayor",), ("Who is the mayor of {s}?", "Who was elected mayor of {s}?")
    ),
    "employer": QuestionType(
        "easy", ("employer",), ("Where does {s} teach?", "Where is {s} a professor?")
    ),
    "discoverer": QuestionType(
        "easy", ("discoverer",), ("Who described {s}?", "Who first described {s}?")
    ),
    "author-birthplace": QuestionType(
        "medium",
        ("author", "birthplace"),
        ("Where was the author of {s} born?", "In which city was the author of {s} born?"),
    ),
    "founder-birthplace": QuestionType(
        "medium",
        ("founder", "birthplace"),
        ("Where was the founder of {s} born?", "In which city was the founder of {s} born?"),
    ),
    "seat-country": QuestionType(
        "medium",
        ("seat", "country"),
        ("Which country is {s} based in?", "In which country is {s} based?"),
    ),
    "chief-birthplace": QuestionType(
        "medium",
        ("chief", "birthplace"),
        ("Where was the chief of {s} born?", "In which city was the chief of {s} born?"),
    ),
    "seat-mayor": QuestionType(
        "medium",
        ("seat", "mayor"),
        (
            "Who is the mayor of the city where {s} is based?",
            "Who was elected mayor of the city where {s} is based?",
        ),
    ),
    "discoverer-employer": QuestionType(
        "medium",
        ("discoverer", "employer"),
        (
            "Where does the scholar who described {s} teach?",
            "Where is the scholar who described {s} a professor?",
        ),
    ),
    "author-birthplace-country": QuestionType(
        "hard",
        ("author", "birthplace", "country"),
        (
            "In which country was the author of {s} born?",
            "Which country does the author of {s} come from?",
        ),
    ),
    "founder-birthplace-mayor": QuestionType(
        "hard",
        ("founder", "birthplace", "mayor"),
        (
            "Who is the mayor of the city where the founder of {s} was born?",
            "Who was elected mayor of the city where the founder of {s} was born?",
        ),
    ),
    "discoverer-birthplace-country": QuestionType(
        "hard",
        ("discoverer", "birthplace", "country"),
        (
            "In which country was the scholar who described {s} born?",
            "Which country does the scholar who described {s} come from?",
        ),
    ),
    "older-company": QuestionType(
        "hard",
        ("year",),
        ("Which company is older, {a} or {b}?", "Which opened first, {a} or {b}?"),
        comparison=True,
    ),
    "same-birthplace": QuestionType(
        "hard",
        ("birthplace",),
        (
            "Were {a} and {b} born in the same city?",
            "Do {a} and {b} have the same place of birth?",
        ),
        comparison=True,
    ),
}
