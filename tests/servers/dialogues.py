"""Dialogues of two turns about the fictional world, and a server that rewrites their follow-ups.

The server reads the conversation from the request alone: it puts the subject of the last question
in the place of "it", and the last answer in the place of a person or a city.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

from openai_chat import user_message

from rsearch_cli.questions.world import World
from rsearch_cli.types import Question

# Type of the first question to follow-ups: as typed, in full ({s} the subject, {o} the answer), and
# the relation that holds the answer.
_FOLLOW_UPS = {
    "founder": [
        ("And where is it based?", "Where is {s} based?", "seat", "s"),
        ("Where was he born?", "Where was {o} born?", "birthplace", "o"),
        ("Who now leads it?", "Who now leads {s}?", "chief", "s"),
    ],
    "seat": [
        ("Who founded it?", "Who founded {s}?", "founder", "s"),
        ("Who is the mayor there?", "Who is the mayor of {o}?", "mayor", "o"),
        ("And which country is that in?", "Which country is {o} in?", "country", "o"),
    ],
    "author": [
        ("Where was she born?", "Where was {o} born?", "birthplace", "o"),
    ],
    "chief": [
        ("Who was the founder of it?", "Who was the founder of {s}?", "founder", "s"),
        ("In which city was he born?", "In which city was {o} born?", "birthplace", "o"),
    ],
    "country": [
        ("Who is the mayor of it?", "Who is the mayor of {s}?", "mayor", "s"),
    ],
    "mayor": [
        ("Which country is it in?", "Which country is {s} in?", "country", "s"),
        ("And where was she born?", "Where was {o} born?", "birthplace", "o"),
    ],
    "discoverer": [
        ("Where does he teach?", "Where does {o} teach?", "employer", "o"),
    ],
}
_SUBJECT = re.compile(r"(?:The )?[A-Z]\w*(?: [A-Z]\w*)*")
_TURN = re.compile(r"^Question: (.*)\nAnswer: (.*)$", re.MULTILINE)
_ASKED = re.compile(r"^Follow-up question: (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A question and its follow-up.

    Attributes:
        first: The question.
        follow_up: The follow-up as typed.
        meant: The follow-up in full, if the first answer is right.
        answer: The answer to it.
    """

    first: Question
    follow_up: str
    meant: str
    answer: str


def make_dialogues(world: World, split: str, number: int, seed: int) -> list[Dialogue]:
    """Draw dialogues from a split of the world; every fact needed is in its corpus."""
    rng = random.Random(seed)
    facts = {(f.relation, f.subject): f.object for f in world.facts()}
    questions = [q for q in world.load(split) if q.type in _FOLLOW_UPS]
    dialogues = []
    for first in rng.sample(questions, len(questions)):
        subject, answer = first.metadata["subjects"][0], first.answers[0]
        typed, full, relation, about = rng.choice(_FOLLOW_UPS[first.type])
        gold = facts.get((relation, subject if about == "s" else answer))
        if gold is not None:
            dialogues.append(Dialogue(first, typed, full.format(s=subject, o=answer), gold))
    return dialogues[:number]


def rewrite(body: dict[str, Any]) -> str:
    """Rewrite the follow-up question of a request by the last turn in it."""
    prompt = user_message(body)
    question, answer = _TURN.findall(prompt)[-1]
    asked = _ASKED.findall(prompt)[-1]
    subject = _SUBJECT.findall(question.partition(" ")[2])[-1]
    full = re.sub(r"^And (\w)", lambda start: start[1].upper(), asked)
    for word, name in (("it", subject), ("there", f"of {answer}"), ("that|he|she", answer)):
        full = re.sub(rf"\b(?:{word})\b", name, full, count=1)
    return f"<think>\nLet me see.\n</think>\n\n{full}"
