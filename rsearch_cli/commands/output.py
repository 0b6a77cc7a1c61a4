"""What commands write: results on stdout, everything about their progress on stderr.

Place in the path: under every command. On failure: a closed pipe raises `BrokenPipeError`, which
`app` ends quietly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from rsearch_cli.storage.json_text import dump_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def print_json(result: Any) -> None:
    """Write a result to stdout as one indented JSON document."""
    typer.echo(dump_json(result, indent=2))


def print_rich(renderable: RenderableType) -> None:
    """Write to stdout what rich can render, as wide as the terminal."""
    with rich_stdout() as console:
        console.print(renderable)


@contextmanager
def rich_stdout() -> Iterator[Console]:
    """A rich console whose output goes to stdout at the end of the `with` block.

    Rich itself answers a closed pipe with exit code 1; through echo it ends like all others.
    """
    from rich.console import Console

    console = Console()
    with console.capture() as capture:
        yield console
    typer.echo(capture.get(), nl=False)
