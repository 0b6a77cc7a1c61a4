"""What a run folder proves: the only facts that a card may state.

Place in the path: `commands.pushing` reads the folder into a `RunRecord`; card, figures and files
are made from it and from nothing else. On failure: what the folder does not hold is None or empty,
and the card says that it was not measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.policy.adapter import StoredAdapter
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.trust import take_harmless
from rsearch_cli.services.budget import ServiceSpend
from rsearch_cli.terminal import finite

HOTPOTQA = "hotpotqa/hotpot_qa"
# Sets that anybody can have by their name.
_PUBLIC_SET = re.compile(r"world|hotpotqa(:\w+)?|flashrag:[\w-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Data:
    """Where questions came from, and under which licence.

    Attributes:
        hub_id: Data set on the Hub, or None.
        name: What a table calls it.
        licence: Its licence in a few words.
    """

    hub_id: str | None
    name: str
    licence: str


_DATA = {
    "hotpotqa": Data(HOTPOTQA, "HotpotQA", "CC BY-SA 4.0"),
    "world": Data(
        None, "rsearch world", "invented by rsearch from a seed; no outside data, Apache-2.0"
    ),
}


@dataclass(frozen=True)
class RunRecord:
    """A finished run, read from its folder.

    Attributes:
        folder: The run folder.
        recipe: All settings of the run.
        environment: `environment.json`.
        summary: `summary.json`; empty if the run was never evaluated to its end.
        rows: The rows of `metrics.jsonl`, one a step.
        questions: Texts of questions that the run was asked, distinct, evaluated ones first.
        services: What each outside service was paid, by its name.
        weights: The trained adapter, as its files describe it.
    """

    folder: Path
    recipe: Recipe
    environment: Mapping[str, Any]
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    questions: Sequence[str]
    services: Mapping[str, ServiceSpend]
    weights: StoredAdapter

    @property
    def adapter(self) -> Path:
        """The trained adapter with its tokenizer."""
        return self.folder / "adapter"

    @property
    def supervised(self) -> bool:
        """Whether it was a cold start, and no reinforcement learning."""
        return self.recipe.stage == "sft"

    @property
    def on_cpu(self) -> bool:
        """Whether the run had no accelerator."""
        return self.environment.get("device", "cpu") == "cpu"

    @property
    def four_bit(self) -> bool:
        """Whether the frozen weights were quantised to NF4."""
        wanted = self.recipe.policy.load_in_4bit
        return wanted if wanted is not None else not self.on_cpu

    @property
    def dtype(self) -> str:
        """Name of the type the policy computed in; a run that kept none is taken for a CPU's."""
        return str(self.environment.get("dtype", "float32"))

    @property
    def steps(self) -> int:
        """Optimiser steps that left a row."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def step_hours(self) -> float | None:
        """Hours that the training steps took, all starts together; None if none left its time."""
        seconds = [finite(row, "seconds/step") for row in self.rows]
        known = [s for s in seconds if s is not None]
        return sum(known) / 3600 if known else None

    @property
    def data(self) -> Data:
        """Where the questions came from."""
        source = self.recipe.questions.source
        if source in _DATA:
            return _DATA[source]
        return Data(None, f"own questions ({source})", "not recorded in the run")

    @property
    def providers(self) -> str:
        """Which kind of source was searched under which name, and where it looked."""
        told: dict[str, list[str]] = {}
        for name, source in self.recipe.search.sources.items():
            over = "" if source.type == "exa" else f" over {self._corpus(source.corpus)}"
            told.setdefault(f"{source.type}{over}", []).append(name)
        return "; ".join(f"{', '.join(names)}: {words}" for words, names in told.items())

    def _corpus(self, corpus: str) -> str:
        if corpus == "questions":
            return f"the passages that come with {self.data.name}"
        return Path(corpus).name

    def last(self, key: str, steps: int = 10) -> float | None:
        """Mean of a metric over the last steps that have it; None if none has."""
        values = [finite(row, key) for row in self.rows[-steps:]]
        known = [v for v in values if v is not None]
        return sum(known) / len(known) if known else None


def public_recipe(recipe: Recipe, base: str | None) -> dict[str, Any]:
    """The settings that somebody who downloads the agent needs, and no others.

    These are the ones that are taken from anybody (see `recipe.trust`): no address, path, account,
    budget or own corpus. Of the sources the kind is told, and of the questions a public set.

    Args:
        recipe: That of the run.
        base: Hub id of the base, or None.

    Returns:
        Nested settings; `load_recipe` fills in what is left out.
    """
    public, _ = take_harmless(recipe.model_dump())
    public |= {
        "purpose": "A search agent that was published with rsearch",
        "hardware": "See the model card",
        "needs": "See the model card",
    }
    if base is not None:
        public["policy"]["model"] = base
    source = recipe.questions.source
    if not _PUBLIC_SET.fullmatch(source):
        del public["questions"]
    else:
        public["questions"]["source"] = source
    for name, searched in recipe.search.sources.items():
        public["search"]["sources"][name] = {
            "type": searched.type if searched.type == "exa" else "bm25"
        }
    return public
