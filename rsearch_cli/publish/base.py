"""The base model: where its weights lie here, and where a stranger gets them.

Place in the path: decided before anything is copied or merged. An adapter is worth nothing without
its base, so there are three cases. A Hub id is named. A model inside rsearch is no repository of
its own: its few megabytes go along, in the folder `base/`. A folder on this machine must be named
by its Hub id (`--base-model`), or the merged weights be pushed, which need no base. On failure:
`PublishError` says which of these is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import PublishError
from rsearch_cli.policy.resolve import BASE, BUILTIN, find_weights, locate_model
from rsearch_cli.recipe.policy import PolicyConfig


@dataclass(frozen=True, slots=True)
class Base:
    """The base of an adapter.

    Attributes:
        path: Folder or Hub id that the weights are loaded from here.
        public: Hub id that a stranger loads, or None.
        name: What the card calls it.
        goes_along: Whether the weights are pushed beside the adapter, in `base/`.
        named_by_hand: Whether `public` was named by the person who pushes, for a folder.
        trust_remote_code: Run code that comes with it.
    """

    path: str
    public: str | None
    name: str
    goes_along: bool = False
    named_by_hand: bool = False
    trust_remote_code: bool = False


def locate_base(policy: PolicyConfig, named: str | None) -> Base:
    """Find the base of a run.

    Args:
        policy: The run's `policy` section.
        named: Hub id given for a base that was a folder, or None.

    Raises:
        PolicyError: The base of the run is not there any more.
    """
    path = find_weights(locate_model(policy.model)).base
    custom = policy.trust_remote_code
    if policy.model.startswith(BUILTIN):
        return Base(path, None, f"{policy.model} of rsearch", goes_along=True)
    if Path(path).is_dir() and Path(path).name == BASE:
        # The run went on from an agent that was pushed with its base.
        name = f"the one in {policy.model}"
        return Base(path, None, name, goes_along=True, trust_remote_code=custom)
    if not Path(path).is_dir():
        return Base(path, path, path, trust_remote_code=custom)
    if named is not None:
        return Base(path, named, named, named_by_hand=True, trust_remote_code=custom)
    name = "a model folder whose origin the run does not record"
    return Base(path, None, name, trust_remote_code=custom)


def require_loadable(base: Base) -> None:
    """Refuse an adapter whose base a stranger cannot get.

    Raises:
        PublishError: Naming what helps.
    """
    if base.public is None and not base.goes_along:
        raise PublishError(
            "the base of this adapter is a folder on this machine, which nobody else can load; "
            "name its Hub id with --base-model ID, or push the whole model with --what merged"
        )


def require_full_precision(base: Base) -> None:
    """Refuse to merge into weights that are quantised: merging would round the adapter away.

    Raises:
        PublishError: The base was stored quantised, or cannot be asked.
    """
    if getattr(load_config(base), "quantization_config", None) is not None:
        raise PublishError(
            f"{base.name} is stored quantised, and an adapter is merged into full-precision "
            "weights only; push --what adapter, or train on the unquantised model (4-bit loading "
            "stays as it is: policy.load_in_4bit)"
        )


def load_config(base: Base) -> Any:
    """The base's model configuration.

    Raises:
        PublishError: It is not here and cannot be downloaded.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base.path, trust_remote_code=base.trust_remote_code)
    except (OSError, ValueError) as error:
        raise unreadable(base, error) from error


def unreadable(base: Base, error: Exception) -> PublishError:
    """Say in one line that a base is not here and cannot be downloaded."""
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return PublishError(f"the base {base.name} cannot be read: {first}")


def read_licence(base: Base) -> dict[str, Any]:
    """Licence fields of the base's own card, for the metadata of ours.

    The card is looked for in the model folder, else in the Hub's cache or on the Hub.

    Returns:
        `license` and, where it is given, `license_name` and `license_link`; `unknown` without card.
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
    # The two others explain a licence of their own; without it they say nothing.
    return known if "license" in known else {"license": "unknown"}
