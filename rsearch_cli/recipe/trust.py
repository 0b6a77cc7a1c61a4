"""Which recipes are the user's own, and what is accepted from anybody else's.

A recipe can name servers that receive keys, files to read, accounts to write to and money to spend.
Of a recipe that comes with a downloaded model or a copied run folder, only harmless settings are
accepted, unless rsearch wrote exactly this file on this machine or the user trusts it. See
docs/security.md.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from rsearch_cli.recipe.documents import show_value
from rsearch_cli.recipe.nested import Keys, leaves, look_up, merge, nest
from rsearch_cli.recipe.training import GOLD_TITLES, WORLD
from rsearch_cli.runs import files
from rsearch_cli.terminal import printable

TAKEN = frozenset(
    """
    purpose hardware needs stage seed
    policy.backend policy.load_in_4bit policy.dtype policy.max_seq_length
    policy.gradient_checkpointing policy.lora
    protocol
    search.top_k search.passage_chars search.expand_dependents search.expand_from_top
    search.own_words_weight
    dialogue.follow_up dialogue.style dialogue.history_tokens dialogue.max_output_tokens
    rollout.max_turns rollout.max_new_tokens rollout.open_thought rollout.temperature rollout.top_p
    reward.weights reward.curriculum_weights reward.curriculum_steps reward.require_valid_plan
    reward.extra reward.normalise_parts reward.shuffle_answers reward.normalisation
    train
    sft.max_traces sft.per_question sft.min_f1 sft.epochs sft.max_steps sft.learning_rate
    sft.batch_size sft.gradient_accumulation_steps
    evaluate.limit evaluate.sampled evaluate.show_trajectories evaluate.every_steps evaluate.slice
    alarms
    """.split()
)
"""Settings and whole sections that send nothing, open no file and cost nothing."""

OF_WORLD = frozenset(
    """
    questions.source questions.difficulty questions.train_split questions.max_samples
    questions.held_out_share questions.held_out_by questions.world
    evaluate.split evaluate.slice_split
    """.split()
)
"""Also accepted if the questions are those of the world, which is generated on this machine."""

_TRUST = "--trust-settings"
# What a Hub id looks like: no path but a relative one of two parts does.
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_PLAIN_SOURCE = {"type": "bm25", "corpus": "questions", "options": {}}
# A run is where its folder is, whatever its recipe says.
_NOT_SHOWN = ("output_dir",)
_SHOWN = 12
# Files beside the recipe of a run, an evaluation or a published agent.
_BESIDE = (
    *(files.TRAJECTORIES, files.SPEND, files.TRACE_STATS, files.EVALUATION, "rsearch.json"),
    *(files.ADAPTER_CONFIG, f"{files.ADAPTER}/{files.ADAPTER_CONFIG}", f"{files.CHECKPOINT}*"),
)


def remember_own(text: str) -> None:
    """Record that rsearch wrote a recipe with this text, if the state folder can be written.

    The record is an empty file in the user's state folder, named by the hash of the text: a run can
    be moved, and a recipe that was changed is not recognised.
    """
    folder = _notes()
    if folder is None:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / _digest(text.encode())).touch(mode=0o600)
    except OSError:
        return  # the user will be asked for --trust-settings


def is_own(path: Path) -> bool:
    """Whether rsearch wrote the file with its present content on this machine, for this user."""
    folder = _notes()
    try:
        return folder is not None and (folder / _digest(path.read_bytes())).is_file()
    except OSError:
        return False


def is_somebodys(path: Path) -> bool:
    """Whether a recipe is part of a run, an evaluation or an agent and was not written here."""
    return any(any(path.parent.glob(name)) for name in _BESIDE) and not is_own(path)


def is_hub_id(name: str) -> bool:
    """Whether text names a repository of the Hub, and no path."""
    return _HUB_ID.fullmatch(name) is not None


def names_no_path(name: str) -> bool:
    """Whether text names a repository of the Hub, and nothing on this machine has that path."""
    return is_hub_id(name) and not Path(name).exists()


def is_builtin(name: str) -> bool:
    """Whether text is the name of a model inside rsearch, and no path behind `builtin:`."""
    return re.fullmatch(r"builtin:[a-z0-9_-]+", name) is not None


def take_harmless(tree: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the settings of a recipe into harmless ones and the rest.

    Questions and sources that are not harmless are replaced by those of the generated world.

    Args:
        tree: Nested settings, unchecked.

    Returns:
        The harmless settings, nested; and all others, by dotted key.
    """
    taken: dict[str, Any] = {}
    left: dict[str, Any] = {}
    of_world = look_up(tree, "questions", "source") == "world"
    for keys, value in leaves(tree):
        if _is_harmless(keys, value, of_world=of_world):
            taken = merge(taken, nest(keys, value))
        elif keys[:2] != ("search", "sources"):
            left[".".join(keys)] = value
    taken = merge(taken, nest(("questions", "source"), "world"))
    named = look_up(taken, "protocol", "sources")
    sources = look_up(tree, "search", "sources")
    if sources and not isinstance(sources, dict):
        left["search.sources"] = sources
    for name in sources if isinstance(sources, dict) else ():
        left |= _unusual(str(name), sources[name])
    if isinstance(named, dict):
        plain = {name: dict(_PLAIN_SOURCE) for name in named}
        taken = merge(taken, nest(("search", "sources"), plain))
    return taken, left


def describe_left_out(left: Mapping[str, Any]) -> str:
    """Return settings that were not accepted on one line."""
    shown = [f"{key}={show_value(value)}" for key, value in left.items()]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return printable(", ".join(shown[:_SHOWN]) + more).replace("\n", " ")


def differing(left: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings left out that would have changed something.

    Args:
        left: By dotted key.
        resolved: The recipe without them, nested.
    """
    return {
        key: value
        for key, value in left.items()
        if key not in _NOT_SHOWN and look_up(resolved, *key.split(".")) != value
    }


def refusal(where: str, left: Mapping[str, Any]) -> str:
    """Return the message that refuses a recipe."""
    return (
        f"{where} was not written by rsearch on this machine, or was changed since, and contains "
        f"settings that are not accepted from others: {describe_left_out(left)}; if you trust it, "
        f"add {_TRUST}"
    )


def _is_harmless(keys: Keys, value: Any, *, of_world: bool) -> bool:
    dotted = ".".join(keys)
    if dotted == "policy.model":
        return isinstance(value, str) and (names_no_path(value) or is_builtin(value))
    if dotted == "reward.answer":
        return value in ("f1", "em")
    if dotted == "dialogue.writer":
        return value in ("auto", "policy", "none")
    if dotted == "sft.traces":
        return value in (WORLD, GOLD_TITLES)
    listed = TAKEN | OF_WORLD if of_world else TAKEN
    return any(".".join(keys[:length]) in listed for length in range(1, len(keys) + 1))


def _unusual(name: str, source: Any) -> dict[str, Any]:
    """Return the settings of a source beyond searching the passages of the question set."""
    prefix = f"search.sources.{name}"
    if not isinstance(source, dict):
        return {prefix: source}
    return {
        f"{prefix}.{key}": value
        for key, value in source.items()
        if key != "cache_days" and _PLAIN_SOURCE.get(key) != value
    }


def _notes() -> Path | None:
    """The folder of the records; RSEARCH_STATE_DIR overrides the user's state folder."""
    if chosen := os.environ.get("RSEARCH_STATE_DIR"):
        return Path(chosen).expanduser().absolute() / "recipes"
    root = Path(os.path.expanduser(platformdirs.user_state_dir("rsearch", appauthor=False)))
    # Without a home folder it would be in the working folder, which others may have filled.
    return root / "recipes" if root.is_absolute() else None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def as_trusted(trust_settings: bool) -> bool | None:
    """Return `trusted` for `load_recipe`; without the flag it depends on who wrote the recipe."""
    return True if trust_settings else None
