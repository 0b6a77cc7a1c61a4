"""Inspect, clear, export and import the answer cache.

A training or evaluation continues without a cache it cannot use; these functions raise instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsearch_cli.errors import DataError, DataMalformed, DataNotFound
from rsearch_cli.runs.atomic_write import replacing
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.services.cache import ANSWERS, AnswerCache
from rsearch_cli.services.validation import parse_strictly

if TYPE_CHECKING:
    from pydantic import JsonValue

LINE_CHARS = 64 * 2**20
"""Maximum length of a line in an import; an answer has at most 8 MiB."""


def cache_stats(cache_dir: Path | None = None) -> dict[str, Any]:
    """Return number, price (USD) and age of the cached answers, in total and by service.

    Args:
        cache_dir: The cache folder; None takes the default.

    Raises:
        DataError: The cache cannot be used.
    """
    with _open(cache_dir) as cache:
        services = cache.stats()
        return {
            "folder": str(cache.folder),
            "bytes": cache.size_bytes(),
            "answers": sum(s.entries for s in services.values()),
            "usd": round(sum(s.usd for s in services.values()), 6),
            "services": {
                name: {
                    "answers": s.entries,
                    "expired": s.expired,
                    "usd": round(s.usd, 6),
                    "oldest": _format_time(s.oldest),
                    "newest": _format_time(s.newest),
                }
                for name, s in services.items()
            },
        }


def clear_cache(service: str | None = None, cache_dir: Path | None = None) -> int:
    """Delete the answers of a service (None: all) and return their number.

    Raises:
        DataError: The cache cannot be used.
    """
    with _open(cache_dir) as cache:
        return cache.clear(service)


def export_answers(file: Path, service: str | None = None, cache_dir: Path | None = None) -> int:
    """Write the answers of a service (None: all) to a JSONL file and return their number.

    Raises:
        DataError: The cache cannot be used, or the file cannot be written.
    """
    count = 0
    try:
        with (
            replacing(file) as draft,
            _open(cache_dir) as cache,
            draft.open("w", encoding="ascii") as lines,
        ):
            for row in cache.export_rows(service, _check_answer):
                lines.write(dump_json(row, separators=(",", ":"), ensure_ascii=True) + "\n")
                count += 1
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error.strerror}") from error
    return count


def import_answers(file: Path, cache_dir: Path | None = None) -> int:
    """Add the answers of an export to the cache, replacing existing ones: all of them or none.

    Returns:
        Number of answers.

    Raises:
        DataNotFound: The file cannot be read.
        DataMalformed: A line is not an exported answer; nothing was imported.
        DataError: The cache cannot be used.
    """
    with _open(cache_dir) as cache:
        try:
            return cache.import_rows(_read_lines(file), _check_answer)
        except DataMalformed as error:
            raise DataMalformed(f"{file}: {error}; nothing was imported") from error


@contextmanager
def _open(cache_dir: Path | None) -> Iterator[AnswerCache]:
    folder = None if cache_dir is None else cache_dir.expanduser() / ANSWERS
    with AnswerCache(folder) as cache:
        yield cache
    if not cache.usable:
        raise DataError(
            f"the answer cache {cache.folder} cannot be used; choose another --cache-dir"
        )


def _read_lines(file: Path) -> Iterator[object]:
    """Yield the JSON value of every line.

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
            f"{file} cannot be read: not UTF-8 text; decompress it first if it is compressed"
        ) from error
    except OSError as error:
        raise DataNotFound(f"{file} cannot be read: {error.strerror}") from error


def _check_answer(parts: Mapping[str, Any], value: JsonValue) -> None:
    """Check that an answer has the form that its key requires.

    Args:
        parts: Fields of the key.
        value: The answer.

    Raises:
        ValueError: It does not.
    """
    from rsearch_cli.dialogue.writers import check_text
    from rsearch_cli.policy.endpoint_calls import check_problem
    from rsearch_cli.policy.endpoint_probe import ServerMode
    from rsearch_cli.reward.rubric import read_verdict
    from rsearch_cli.search.cache_entries import decode_passages, read_robots, read_text
    from rsearch_cli.services.completion import check_reply
    from rsearch_cli.services.runtime import JUDGE, POLICY, ROBOTS, TEACHER, WRITER

    try:
        if parts["service"] in (POLICY, TEACHER) and "question" in parts:
            ServerMode.from_json(value) if "results" in parts else check_problem(value)
        elif parts["service"] in (POLICY, TEACHER):
            check_reply(value)
        elif parts["service"] == WRITER:
            check_text(value)
        elif parts["service"] == JUDGE:
            read_verdict(parts["mode"], parts["references"], value)
        elif parts["service"] == ROBOTS:
            read_robots(value)
        elif "page" in parts:
            read_text(value)
        else:
            decode_passages(value, parts["top_k"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"its key lacks a part or has a wrong one: {error}") from error


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
