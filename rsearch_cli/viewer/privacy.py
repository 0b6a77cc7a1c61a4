"""What a viewer file must not carry out of this machine: local paths, and logins in addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from rsearch_cli.recipe.addresses import hide_login

# An absolute path of two parts or more, or one in a home folder; not the path of an address.
_PATH = re.compile(
    r"(?<![\w./~<:-])(?:~[\w.-]*)?(?:/[\w.+@~-]+){2,}/?|(?<![\w.])~[\w.-]*/[\w.+@~-]+"
    r"|(?<![A-Za-z])[A-Za-z]:\\{1,2}[^\s\"'<>|]+"
)
_WHOLE = re.compile(r"(?:~|/|[A-Za-z]:[\\/]|\\\\|file:).*", re.DOTALL)
_ADDRESS = re.compile(r"\w+://[^\s/]*@")
_LEFT_OUT = frozenset({"output_dir"})


def public_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key, with the last part of every local path only."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if key in _LEFT_OUT:
            continue
        if isinstance(value, Mapping) and value:
            flat |= public_settings(value, f"{key}.")
        else:
            flat[key] = public_value(value)
    return flat


def public_value(value: Any) -> Any:
    """Return a JSON value whose texts contain no local path and no login."""
    if isinstance(value, str):
        if _ADDRESS.match(value):
            return hide_login(value)
        return last_part(value) if _WHOLE.fullmatch(value) else without_paths(value)
    if isinstance(value, Mapping):
        return {str(key): public_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public_value(item) for item in value]
    # YAML has dates, too.
    return value if value is None or isinstance(value, int | float) else str(value)


def without_paths(text: str) -> str:
    """Return a message with the last part of every local path only."""
    return _PATH.sub(lambda found: last_part(found[0]), text)


def last_part(path: str) -> str:
    """Return the last name of a path of either kind of system."""
    name = PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name
    return name or "…"
