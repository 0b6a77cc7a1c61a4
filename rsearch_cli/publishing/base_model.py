"""The base model of an adapter: where its weights are here, and where others can load it from.

An adapter is useless without its base. A base from the Hub is referenced by its id; the model that
ships with rsearch is only a few megabytes and is copied into `base/`; a local folder needs a Hub id
(`--base-model`), or the merged weights must be published instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import PublishError, first_line
from rsearch_cli.policy.resolve import BASE, BUILTIN, find_weights, locate_model
from rsearch_cli.recipe.policy import PolicyConfig


@dataclass(frozen=True, slots=True)
class BaseWeights:
    """The base model of an adapter.

    Attributes:
        path: Folder or Hub id that the weights are loaded from on this machine.
        hub_id: Hub id that others load it by, or None.
        name: Name used in the model card and in messages.
        bundled: Whether the weights are published next to the adapter, in `base/`.
        named_by_user: Whether `hub_id` was given by the user for a local folder.
        trust_remote_code: Whether to run code that ships with the model.
    """

    path: str
    hub_id: str | None
    name: str
    bundled: bool = False
    named_by_user: bool = False
    trust_remote_code: bool = False


def locate_base(policy: PolicyConfig, named: str | None) -> BaseWeights:
    """Find the base model of a run.

    Args:
        policy: The run's `policy` section.
        named: Hub id given by the user for a base that is a local folder, or None.

    Raises:
        PolicyError: The base model no longer exists.
    """
    path = find_weights(locate_model(policy.model)).base
    custom = policy.trust_remote_code
    if policy.model.startswith(BUILTIN):
        name = f"{policy.model}, which ships with rsearch"
        return BaseWeights(path, None, name, bundled=True)
    if Path(path).is_dir() and Path(path).name == BASE:
        # The run continued from an agent that was published together with its base.
        name = f"the one bundled with {policy.model}"
        return BaseWeights(path, None, name, bundled=True, trust_remote_code=custom)
    if not Path(path).is_dir():
        return BaseWeights(path, path, path, trust_remote_code=custom)
    if named is not None:
        return BaseWeights(path, named, named, named_by_user=True, trust_remote_code=custom)
    name = "a local model folder; its origin is not recorded"
    return BaseWeights(path, None, name, trust_remote_code=custom)


def require_loadable(base: BaseWeights) -> None:
    """Refuse an adapter whose base model nobody else can load.

    Raises:
        PublishError: The base is a local folder without a Hub id.
    """
    if base.hub_id is None and not base.bundled:
        raise PublishError(
            "the base model of this adapter is a local folder that nobody else can load; give its "
            "Hub id with --base-model ID, or publish the whole model with --what merged"
        )


def require_full_precision(base: BaseWeights) -> None:
    """Refuse to merge into quantised weights, where rounding would erase the adapter.

    Raises:
        PublishError: The base is stored quantised, or its configuration cannot be read.
    """
    if getattr(load_config(base), "quantization_config", None) is not None:
        raise PublishError(
            f"{base.name} is stored quantised, and an adapter can only be merged into "
            "full-precision weights; use --what adapter, or train on the unquantised model "
            "(policy.load_in_4bit still loads it in 4 bits)"
        )


def load_config(base: BaseWeights) -> Any:
    """Return the base's model configuration.

    Raises:
        PublishError: It is neither stored here nor downloadable.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base.path, trust_remote_code=base.trust_remote_code)
    except (OSError, ValueError) as error:
        raise unreadable(base, error) from error


def unreadable(base: BaseWeights, error: Exception) -> PublishError:
    """Return the one-line error for a base model that cannot be read or downloaded."""
    return PublishError(f"the base model {base.name} cannot be read: {first_line(error)}")


def read_licence(base: BaseWeights) -> dict[str, Any]:
    """Return the licence fields of the base's own model card.

    The card is read from the model folder, else from the Hub or its local cache.

    Returns:
        `license` and, where given, `license_name` and `license_link`; `license: unknown` without
        a card.
    """
    import yaml
    from huggingface_hub import ModelCard, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    card = Path(base.path) / "README.md"
    try:
        if not Path(base.path).is_dir():
            card = Path(hf_hub_download(base.path, "README.md"))
        fields = ModelCard.load(card, ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, yaml.YAMLError, EntryNotFoundError, HfHubHTTPError):
        return {"license": "unknown"}
    keys = ("license", "license_name", "license_link")
    known = {key: fields[key] for key in keys if isinstance(fields.get(key), str)}
    # `license_name` and `license_link` qualify `license`; without it they mean nothing.
    return known if "license" in known else {"license": "unknown"}
