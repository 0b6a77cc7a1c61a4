"""rsearch: train, evaluate and use search agents (R-Search, arXiv 2506.08352).

    agent = rsearch_cli.Agent.from_pretrained("runs/quickstart")
    print(agent.ask("Who founded Vosbe Press?").answer)

Importing the package is cheap: each name is imported when it is first used. See docs/python-api.md.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsearch_cli.errors import RsearchError as RsearchError
    from rsearch_cli.recipe.schema import Recipe as Recipe
    from rsearch_cli.rollout.answer import AgentAnswer as AgentAnswer
    from rsearch_cli.serving.engine import ServingEngine as ServingEngine
    from rsearch_cli.serving.requests import AskRequest as AskRequest
    from rsearch_cli.types import Turn as Turn
    from rsearch_cli.workflows.ask import Agent as Agent
    from rsearch_cli.workflows.ask import Conversation as Conversation
    from rsearch_cli.workflows.evaluate import EvaluationReport as EvaluationReport
    from rsearch_cli.workflows.evaluate import evaluate as evaluate
    from rsearch_cli.workflows.train import TrainingReport as TrainingReport
    from rsearch_cli.workflows.train import train as train

__version__ = "0.1.0"

_MODULES = {
    "Agent": "workflows.ask",
    "AgentAnswer": "rollout.answer",
    "AskRequest": "serving.requests",
    "Conversation": "workflows.ask",
    "EvaluationReport": "workflows.evaluate",
    "Recipe": "recipe.schema",
    "RsearchError": "errors",
    "ServingEngine": "serving.engine",
    "TrainingReport": "workflows.train",
    "Turn": "types",
    "evaluate": "workflows.evaluate",
    "train": "workflows.train",
}

__all__ = [
    "Agent",
    "AgentAnswer",
    "AskRequest",
    "Conversation",
    "EvaluationReport",
    "Recipe",
    "RsearchError",
    "ServingEngine",
    "TrainingReport",
    "Turn",
    "evaluate",
    "load_recipe",
    "train",
]

# A program that imports the package sees its messages only if it configures logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def load_recipe(
    name_or_path: str | Path, overrides: Sequence[str] = (), *, trust_settings: bool = False
) -> Recipe:
    """Load a recipe, apply overrides and check it.

    Args:
        name_or_path: Name of a shipped recipe, or the path of a file.
        overrides: Settings as `key=value`, as for `--set`.
        trust_settings: Accept all settings of a recipe that somebody else wrote.

    Raises:
        RecipeError: The recipe cannot be found or used.
    """
    from rsearch_cli.recipe.loading import load_recipe as load
    from rsearch_cli.recipe.trust import as_trusted

    loaded = load(str(name_or_path), overrides, trusted=as_trusted(trust_settings))
    folder = loaded.recipe.output_dir.replace("{recipe}", loaded.name)
    return loaded.recipe.model_copy(update={"output_dir": folder})


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
