"""The policy that `eval` and `infer` ask: which recipe and weights, and how they are opened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

from rsearch_cli.errors import UsageError
from rsearch_cli.policy.endpoint import EndpointPolicy
from rsearch_cli.policy.generation import Policy, PromptRenderer
from rsearch_cli.policy.loading import describe_backend, load_policy, open_tokenizer
from rsearch_cli.policy.prompts import fit_examples
from rsearch_cli.policy.resolve import ModelChoice, choose_model
from rsearch_cli.recipe.loading import LoadedRecipe, load_recipe, override_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.trust import as_trusted, describe_left_out, is_own
from rsearch_cli.search.sources import check_kind
from rsearch_cli.services.runtime import Services
from rsearch_cli.terminal import printable

logger = logging.getLogger(__name__)

DEFAULT_RECIPE = "quickstart"

NANO = "builtin:nano"
"""The model that was trained on the search protocol and needs no instructions."""

_OF_CORPUS = ("bm25", "dense", "hybrid")
"""Kinds of sources that may search the passages of the fictional world."""


def choose_policy(
    recipe: Recipe | str | None,
    overrides: Sequence[str],
    model: str | None,
    endpoint: str | None,
    endpoint_model: str | None,
    flags: Mapping[str, object],
    *,
    source: str | None = None,
    trust_settings: bool = False,
) -> tuple[LoadedRecipe, Path | None]:
    """Combine recipe and model; a model may bring its recipe, and a recipe names a model.

    Args:
        recipe: A recipe, its name or its path; None takes the recipe of the run that `model` names,
            else the quickstart.
        overrides: Settings as for `--set`.
        model: See `choose_model`; None leaves it to the recipe.
        endpoint: URL of a server to use instead of local weights.
        endpoint_model: The model's name on that server.
        flags: Further settings, as for `load_recipe`.
        source: Kind of all search sources, or their settings as YAML; None leaves them to the
            recipe.
        trust_settings: Accept every setting of the model's recipe, whoever wrote it.

    Returns:
        The recipe with all settings, and the folder of an adapter for local weights, or None.

    Raises:
        RecipeError: The recipe or a setting cannot be used.
        PolicyError: `model` cannot be used.
        UsageError: Arguments contradict each other.
    """
    named = [override for override in overrides if override.startswith("policy.model=")]
    trusted = as_trusted(trust_settings)
    chosen = ModelChoice()
    if model is not None:
        chosen = choose_model(model, trusted=trust_settings or bool(named))
    # The base of an adapter may be overridden, such as after its folder was moved.
    base = None if chosen.adapter and named else chosen.base
    if chosen.recipe is not None:
        theirs = trust_settings or is_own(chosen.recipe)
        if recipe is None:
            trusted = theirs
        elif base is None:
            base = load_recipe(str(chosen.recipe), named, trusted=theirs).recipe.policy.model
    own = {
        "policy.model": base,
        "policy.endpoint.url": endpoint,
        "policy.endpoint.model": endpoint_model,
    }
    if isinstance(recipe, Recipe):
        loaded = override_recipe(recipe, overrides, {**flags, **own}, source)
    else:
        path = recipe or (str(chosen.recipe) if chosen.recipe else DEFAULT_RECIPE)
        loaded = load_recipe(path, overrides, {**flags, **own}, trusted=trusted, source=source)
    if loaded.left_out:
        name = printable(str(model or recipe))
        logger.warning(
            f"settings of the recipe of {name} that are not accepted from others: "
            f"{describe_left_out(loaded.left_out)}; --trust-settings accepts them"
        )
    on_server = loaded.recipe.policy.endpoint.url is not None
    if endpoint_model is not None and not on_server:
        raise UsageError("--endpoint-model names a model on a server; give --endpoint URL too")
    if source is not None:
        for config in loaded.recipe.search.sources.values():
            if config.type in source:  # not in a setting that takes precedence over it
                check_kind(config.type, "--source")
        if not on_server:
            _explain_nano(loaded.recipe)
    return loaded, None if on_server else chosen.adapter


def _explain_nano(recipe: Recipe) -> None:
    """Say which model to take if the built-in one is to search the real world."""
    kinds = {config.type for config in recipe.search.sources.values()}
    if recipe.policy.model == NANO and kinds.isdisjoint(_OF_CORPUS):
        logger.warning(
            f"{NANO} knows only the names of its own fictional world; a real question needs "
            "another model: add --recipe hotpot-offline --model Qwen/Qwen2.5-3B-Instruct, or "
            "--endpoint URL for one on a server"
        )


@contextmanager
def open_policy(
    recipe: Recipe,
    adapter: Path | None,
    services: Services,
    check: Callable[[PromptRenderer, Recipe], None],
    server: EndpointPolicy | None = None,
    *,
    today: date | None = None,
) -> Iterator[tuple[Policy, Recipe]]:
    """Open the server that the recipe names, or load its weights.

    Args:
        recipe: All settings.
        adapter: Folder of a trained adapter for local weights, or None.
        services: Calls to a server go through them.
        check: Called to check the prompts before anything is loaded or sent.
        server: The server, if it is already open; the caller closes it.
        today: Date for chat templates of local weights that contain one; None is a fixed day, so
            that results do not depend on the date.

    Returns:
        The policy, and the recipe with prompts that the chat template supports.

    Raises:
        PolicyError: The weights cannot be loaded.
        AccessDenied: The server needs a key, and there is none.
    """
    if recipe.policy.endpoint.url is not None:
        with ExitStack() as stack:
            remote = server or stack.enter_context(open_endpoint(recipe, services))
            recipe, notes = fit_examples(recipe, remote.describe_problem)
            for note in notes:
                logger.warning(note)
            check(remote, recipe)
            yield remote, recipe
        return
    recipe, chat_tokenizer, _ = open_tokenizer(recipe)
    check(chat_tokenizer, recipe)
    logger.info(f"loading {recipe.policy.model}")
    policy = load_policy(recipe.policy, recipe.seed, recipe.rollout, adapter, chat_tokenizer)
    logger.info(describe_backend(policy))
    import torch

    policy.template.today = today or policy.template.today
    torch.manual_seed(recipe.seed)
    yield policy, recipe


@contextmanager
def open_endpoint(recipe: Recipe, services: Services) -> Iterator[EndpointPolicy]:
    """Connect to the server that the recipe names, and check that it answers.

    Raises:
        PolicyError: The server does not know the model, or refuses the requests.
        ServiceFailure: It does not answer.
        AccessDenied: It needs a key, and there is none, or it refuses the key.
    """
    with EndpointPolicy(recipe.policy, services) as policy:
        policy.start()
        yield policy
