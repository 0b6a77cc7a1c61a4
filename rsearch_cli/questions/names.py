"""Invented names for the fictional world: pronounceable, seeded, never used twice.

Place in the path: below `world`, which asks for a name per entity. On failure: `NameMaker.word`
raises RuntimeError once the syllables are used up (about 190,000 words), far beyond any world.
"""

from __future__ import annotations

import random

ONSETS = "b d f g h j k l m n p r s t v z br dr tr kl".split()
VOWELS = "a e i o u".split()
CODAS = ["", "n", "r", "l", "s"]
SYLLABLES = [o + v + c for o in ONSETS for v in VOWELS for c in CODAS]
FIRST_NAMES = 150
WORK_NOUNS = "Garden River Letter Mirror Winter Island Harbour Bridge Lantern Orchard".split()
COMPANY_NOUNS = "Works Motors Foods Press Bank Lines".split()


class NameMaker:
    """Deals out names of one universe; two calls never return the same one."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._used: set[str] = set()
        self._first_names = [self.word() for _ in range(FIRST_NAMES)]

    def word(self) -> str:
        """A new capitalised word of two syllables."""
        for _ in range(10_000):
            word = "".join(self._rng.choices(SYLLABLES, k=2)).capitalize()
            if word not in self._used:
                self._used.add(word)
                return word
        raise RuntimeError("the world has run out of invented words; ask for fewer regions")

    def name(self, kind: str) -> str:
        """A new name for an entity of `kind` (`person`, `city`, `country`, `company`, ...)."""
        word = self.word()
        match kind:
            case "person":
                return f"{self._rng.choice(self._first_names)} {word}"
            case "country":
                return f"{word}land" if word[-1] in VOWELS else f"{word}ia"
            case "company":
                return f"{word} {self._rng.choice(COMPANY_NOUNS)}"
            case "university":
                return f"{word} University"
            case "work":
                return f"The {word} {self._rng.choice(WORK_NOUNS)}"
            case "phenomenon":
                return f"{word} Effect"
            case _:
                return word
