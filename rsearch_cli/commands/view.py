"""`rsearch view`: look into runs and evaluations in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsearch_cli.streams import echo


def view(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN|EVAL", help="Folders of runs and evaluations."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="HTML file to write.",
            show_default="view.html in the first folder",
        ),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Serve the page instead, and follow runs that go on."),
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port for --serve; 0 takes any free port.",
            show_default="8001",
        ),
    ] = None,
) -> None:
    """Look into runs and evaluations: curves, trajectories, groups, comparisons.

    Writes one HTML file with everything in it, and prints its path. Two or
    more folders are compared.

    Example: rsearch view runs/quickstart
    """
    if serve and output is not None:
        raise typer.BadParameter("--serve writes no file; leave out --output")
    if port is not None and not serve:
        raise typer.BadParameter("--port is for --serve")
    if serve:
        from rsearch_cli.serving.server import open_listener
        from rsearch_cli.serving.view_server import serve_view

        with open_listener("127.0.0.1", 8001 if port is None else port) as listener:
            serve_view(folders, listener, on_ready=echo)
        return
    from rsearch_cli.workflows.view import write_view

    echo(str(write_view(folders, output)))
