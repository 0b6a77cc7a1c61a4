"""`rsearch cache`: inspect, clear, export and import the answer cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rsearch_cli.commands.options import CacheDir, Json, value
from rsearch_cli.streams import echo
from rsearch_cli.terminal import on_one_line
from rsearch_cli.ui.output import plain_table, print_json, print_rich

cache_app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Inspect, clear, export or import cached search and model answers.",
)

Service = Annotated[str | None, value("NAME", "Only this service, such as exa or judge.")]


@cache_app.command()
def stats(cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Show how many answers are cached, what they cost and how old they are.

    Example: rsearch cache stats --json
    """
    from rsearch_cli.workflows.cache import cache_stats

    result = cache_stats(cache_dir)
    print_json(result) if as_json else _print_stats(result)


@cache_app.command()
def clear(service: Service = None, cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Delete all cached answers, or those of one service.

    Example: rsearch cache clear --service exa
    """
    from rsearch_cli.workflows.cache import clear_cache

    removed = clear_cache(service, cache_dir)
    _report({"removed": removed}, f"removed {_count(removed)}", as_json)


@cache_app.command("export")
def export_(
    file: Annotated[Path, typer.Argument(help="JSONL file to write or overwrite.")],
    service: Service = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Export cached answers, to replay a paid run on another machine.

    Example: rsearch cache export answers.jsonl
    """
    from rsearch_cli.workflows.cache import export_answers

    count = export_answers(file, service, cache_dir)
    _report({"exported": count, "file": str(file)}, f"exported {_count(count)} to {file}", as_json)


@cache_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="File written by `rsearch cache export`.")],
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Import all answers from an export; existing ones are replaced.

    Example: rsearch cache import answers.jsonl
    """
    from rsearch_cli.workflows.cache import import_answers

    count = import_answers(file, cache_dir)
    _report({"imported": count, "file": str(file)}, f"imported {_count(count)}", as_json)


def _report(result: dict[str, Any], line: str, as_json: bool) -> None:
    print_json(result) if as_json else echo(line)


def _count(answers: int) -> str:
    return f"{answers} {'answer' if answers == 1 else 'answers'}"


def _print_stats(result: dict[str, Any]) -> None:
    headings = ("SERVICE", "ANSWERS", "EXPIRED", "USD", "OLDEST (UTC)", "NEWEST (UTC)")
    table = plain_table(*headings, overflow="fold")
    for name, s in result["services"].items():
        numbers = (str(s["answers"]), str(s["expired"]), f"{s['usd']:.4f}")
        # Without seconds, six columns fit into 80 characters.
        times = (s[key][:16].replace("T", " ") for key in ("oldest", "newest"))
        table.add_row(on_one_line(name), *numbers, *times)
    print_rich(table)
    size = f"{result['bytes'] / 2**20:.1f} MiB"
    echo("", f"{_count(result['answers'])}, {size}, in {result['folder']}")
