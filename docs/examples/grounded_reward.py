"""Reward part `grounded`: how much of the answer was found, and not made up."""

import re


def grounded(trajectory, recipe):
    """Return the share of the answer's words that occur in the passages."""
    words = read_words(trajectory.answer or "")
    results = [result for turn in trajectory.rounds for result in turn.results]
    passages = [passage for result in results for passage in result.passages]
    found = read_words(" ".join(f"{p.title} {p.text}" for p in passages))
    return len(words & found) / max(1, len(words))


def read_words(text):
    return set(re.findall(r"\w+", text.lower()))
