"""`rsearch cache`: the answers that are kept on disk: look at them, remove them, share them.

Place in the path: a command over `services.cache`. On failure: a file that cannot be read is
`DataNotFound`, a line in it that is no answer `DataMalformed`, and nothing of it is imported; a
file that cannot be written, or a cache that cannot be used, is `DataError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsearch_cli.commands.options import CacheDir, Json
from rsearch_cli.errors import DataError, DataMalformed, DataNotFound
from rsearch_cli.runs.atomic_write import replacing
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.services.validation import parse_strictly
from rsearch_cli.streams import echo
from rsearch_cli.terminal import on_one_line
from rsearch_cli.ui.output import print_json, print_rich

if TYPE_CHECKING:
    from pydantic import JsonValue

    from rsearch_cli.services.cache import AnswerCache

cache_app = typer.Typer(
    no_args_is_help=True, help="Look at the answers that are kept on disk, remove or share them."
)

LINE_CHARS = 64 * 2**20
"""Longest line of an import, in characters; the answer of a service has 8 MiB at the most."""

Service = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only this service's, such as exa or judge.")
]


@cache_app.command()
def stats(cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Print how many answers are kept, what they cost, and how old they are.

    Example: rsearch cache stats --json
    """
    with _open(cache_dir) as cache:
        services = cache.stats()
        result = {
            "folder": str(cache.folder),
            "bytes": cache.size_bytes(),
            "answers": sum(s.entries for s in services.values()),
            "usd": round(sum(s.usd for s in services.values()), 6),
            "services": {
                name: {
                    "answers": s.entries,
                    "expired": s.expired,
                    "usd": round(s.usd, 6),
                    "oldest": _show_time(s.oldest),
                    "newest": _show_time(s.newest),
                }
                for name, s in services.items()
            },
        }
    print_json(result) if as_json else _print_stats(result)


@cache_app.command()
def clear(service: Service = None, cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Remove the kept answers, all or one service's.

    Example: rsearch cache clear --service exa
    """
    with _open(cache_dir) as cache:
        removed = cache.clear(service)
    _report({"removed": removed}, f"removed {_count(removed)}", as_json)


@cache_app.command("export")
def export_(
    file: Annotated[Path, typer.Argument(help="JSONL file to write; an old one is replaced.")],
    service: Service = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Write the kept answers to a file, to replay a paid-for run on another machine.

    Example: rsearch cache export answers.jsonl
    """
    count = 0
    try:
        with (
            replacing(file) as state,
            _open(cache_dir) as cache,
            state.open("w", encoding="ascii") as lines,
        ):
            for row in cache.export_rows(service, _check_answer):
                lines.write(dump_json(row, separators=(",", ":"), ensure_ascii=True) + "\n")
                count += 1
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error.strerror}") from error
    _report({"exported": count, "file": str(file)}, f"exported {_count(count)} to {file}", as_json)


@cache_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSONL file that `rsearch cache export` wrote.")],
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Keep the answers of a file, in place of those that are here: all of them or none.

    Example: rsearch cache import answers.jsonl
    """
    with _open(cache_dir) as cache:
        try:
            count = cache.import_rows(_read_lines(file), _check_answer)
        except DataMalformed as error:
            raise DataMalformed(f"{file}: {error}; nothing was imported") from error
    _report({"imported": count, "file": str(file)}, f"imported {_count(count)}", as_json)


@contextmanager
def _open(cache_dir: Path | None) -> Iterator[AnswerCache]:
    """Open the cache; a run does without one that cannot be used, these commands do not."""
    from rsearch_cli.services.cache import ANSWERS, AnswerCache

    folder = None if cache_dir is None else cache_dir.expanduser() / ANSWERS
    with AnswerCache(folder) as cache:
        yield cache
    if not cache.usable:
        raise DataError(f"the answer cache {cache.folder} cannot be used; name another --cache-dir")


def _read_lines(file: Path) -> Iterator[object]:
    """The JSON value of every line.

    Raises:
        DataNotFound: The file cannot be read.
        DataMalformed: A line is not JSON, or longer than an answer can be.
    """
    try:
        with file.open(encoding="utf-8") as lines:
            number = 0
            while line := lines.readline(LINE_CHARS + 1):
                number += 1
                if len(line) > LINE_CHARS:
                    raise DataMalformed(f"line {number} has more than {LINE_CHARS} characters")
                try:
                    yield parse_strictly(line)
                except ValueError as error:
                    raise DataMalformed(f"line {number} is not JSON ({error})") from error
    except UnicodeDecodeError as error:
        raise DataNotFound(
            f"{file} cannot be read: it is not text in UTF-8; unpack it first if it is compressed"
        ) from error
    except OSError as error:
        raise DataNotFound(f"{file} cannot be read: {error.strerror}") from error


def _check_answer(parts: Mapping[str, Any], value: JsonValue) -> None:
    """Check that an answer is of the kind that its key asks for.

    Args:
        parts: Of the key.
        value: The answer.

    Raises:
        ValueError: It is not.
    """
    from rsearch_cli.policy.endpoint_calls import check_problem
    from rsearch_cli.policy.endpoint_probe import ServerMode
    from rsearch_cli.reward.rubric import read_verdict
    from rsearch_cli.search.cache_entries import decode_passages
    from rsearch_cli.services.completion import check_reply
    from rsearch_cli.services.runtime import JUDGE, POLICY

    try:
        if parts["service"] == POLICY and "question" in parts:
            ServerMode.from_json(value) if "results" in parts else check_problem(value)
        elif parts["service"] == POLICY:
            check_reply(value)
        elif parts["service"] == JUDGE:
            read_verdict(parts["mode"], parts["references"], value)
        else:
            decode_passages(value, parts["top_k"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"its key lacks a part or has a wrong one: {error}") from error


def _report(result: dict[str, Any], line: str, as_json: bool) -> None:
    print_json(result) if as_json else echo(line)


def _count(answers: int) -> str:
    return f"{answers} {'answer' if answers == 1 else 'answers'}"


def _show_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _print_stats(result: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("SERVICE", "ANSWERS", "EXPIRED", "USD", "OLDEST (UTC)", "NEWEST (UTC)"):
        table.add_column(heading, overflow="fold")
    for name, s in result["services"].items():
        numbers = (str(s["answers"]), str(s["expired"]), f"{s['usd']:.4f}")
        # To the minute: six columns have to fit in 80.
        times = (s[key][:16].replace("T", " ") for key in ("oldest", "newest"))
        table.add_row(on_one_line(name), *numbers, *times)
    print_rich(table)
    size = f"{result['bytes'] / 2**20:.1f} MiB"
    echo("", f"{_count(result['answers'])}, {size}, in {result['folder']}")
