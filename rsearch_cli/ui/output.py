"""Results on stdout: JSON, and what Rich can render."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.streams import open_console, write_stdout

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table


def print_json(result: Any) -> None:
    """Print a result as one indented JSON document, in the encoding of stdout."""
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    write_stdout(dump_json(result, indent=2, ensure_ascii=ascii_only) + "\n")


def print_rich(renderable: RenderableType) -> None:
    """Print what Rich can render, as wide as the terminal."""
    with rich_stdout() as console:
        console.print(renderable)


def plain_table(*headings: str, **columns: Any) -> Table:
    """Return a Rich table without lines; `columns` are arguments for each of its columns."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, **columns)
    return table


@contextmanager
def rich_stdout() -> Iterator[Console]:
    """Yield a Rich console whose output is written to stdout at the end of the `with` block.

    Rich itself would exit with 1 on a closed pipe.
    """
    console = open_console()
    with console.capture() as capture:
        yield console
    write_stdout(capture.get())
