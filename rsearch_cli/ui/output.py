"""The forms in which commands write results to stdout; messages are logged."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.streams import open_console, write_stdout

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def print_json(result: Any) -> None:
    """Write a result to stdout as one indented JSON document, in the encoding of stdout."""
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    write_stdout(dump_json(result, indent=2, ensure_ascii=ascii_only) + "\n")


def print_rich(renderable: RenderableType) -> None:
    """Write to stdout what rich can render, as wide as the terminal."""
    with rich_stdout() as console:
        console.print(renderable)


@contextmanager
def rich_stdout() -> Iterator[Console]:
    """A rich console whose output goes to stdout at the end of the `with` block.

    Rich itself answers a closed pipe with exit code 1; this way it ends as everywhere else.
    """
    console = open_console()
    with console.capture() as capture:
        yield console
    write_stdout(capture.get())
