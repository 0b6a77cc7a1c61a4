"""Keys given as flags: kept for comfort, and taken out of sight at once.

Place in the path: between the command line and the environment, which is the only place where the
rest of the program looks for a key. On failure: nothing here can fail; where the process cannot be
replaced, as on Windows, a key given as a flag stays visible in the list of the user's processes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

FLAGS: Mapping[str, str] = {
    "--openai-api-key": "OPENAI_API_KEY",
    "--exa-api-key": "EXA_API_KEY",
    "--wandb-api-key": "WANDB_API_KEY",
    "--hub-token": "HF_TOKEN",
}
"""Flag that carries a key → environment variable that carries it better."""


def split_keys(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take the keys out of a command line.

    Args:
        arguments: All after the program's name.

    Returns:
        The arguments without the keys and their flags, and the keys by environment variable. A
        flag without a value stays, for the parser to complain of.
    """
    rest: list[str] = []
    keys: dict[str, str] = {}
    position = 0
    while position < len(arguments):
        flag, equals, value = arguments[position].partition("=")
        if flag == "--":
            break
        if flag in FLAGS and not equals and position + 1 < len(arguments):
            position += 1
            equals, value = "=", arguments[position]
        if flag in FLAGS and equals:
            keys[FLAGS[flag]] = value
        else:
            rest.append(arguments[position])
        position += 1
    return [*rest, *arguments[position:]], keys


def hide_keys() -> None:
    """Start this process anew without the keys on its command line, if there are any.

    Any user of the machine can read the command line of a running process, but not its environment.
    """
    rest, keys = split_keys(sys.argv[1:])
    if keys and sys.platform != "win32":
        program = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
        os.execve(sys.executable, [*program, *rest], {**os.environ, **keys})


def keep_keys(keys: Mapping[str, str | None]) -> None:
    """Put keys that were given as flags where the program looks for them.

    Args:
        keys: Flag to its value; None is «not given».
    """
    os.environ.update({FLAGS[flag]: value for flag, value in keys.items() if value is not None})
