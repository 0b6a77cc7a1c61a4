"""Keys given as flags: moved into the environment, where services read them, and out of sight.

Where a process cannot be replaced, as on Windows, a key given as a flag stays visible in the
process list of this machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

KEY_FLAGS: Mapping[str, str] = {
    "--openai-api-key": "OPENAI_API_KEY",
    "--exa-api-key": "EXA_API_KEY",
    "--wandb-api-key": "WANDB_API_KEY",
    "--hub-token": "HF_TOKEN",
    "--api-key": "RSEARCH_API_KEY",
}
"""Flag that carries a key, and the environment variable that it sets."""


def split_keys(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Separate the keys from a command line.

    Args:
        arguments: Everything after the name of the program.

    Returns:
        The arguments without keys and their flags, and the keys by environment variable. A flag
        without a value stays, so that the parser reports it.
    """
    rest: list[str] = []
    keys: dict[str, str] = {}
    position = 0
    while position < len(arguments):
        flag, equals, value = arguments[position].partition("=")
        if flag == "--":
            break
        if flag in KEY_FLAGS and not equals and position + 1 < len(arguments):
            position += 1
            equals, value = "=", arguments[position]
        if flag in KEY_FLAGS and equals:
            keys[KEY_FLAGS[flag]] = value
        else:
            rest.append(arguments[position])
        position += 1
    return [*rest, *arguments[position:]], keys


def hide_keys() -> None:
    """Restart this process without the keys on its command line, if there are any.

    Every user of the machine can read the command line of a process, but not its environment.
    """
    rest, keys = split_keys(sys.argv[1:])
    if keys and sys.platform != "win32":
        program = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
        os.execve(sys.executable, [*program, *rest], {**os.environ, **keys})


def export_keys(keys: Mapping[str, str | None]) -> None:
    """Set the environment variables of keys that were given as flags.

    Args:
        keys: Flag to its value; None means not given.
    """
    os.environ.update({KEY_FLAGS[flag]: key for flag, key in keys.items() if key is not None})
