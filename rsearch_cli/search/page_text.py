"""The text of a page, and the part of it that a query asks for."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise

from rsearch_cli.protocol.characters import flatten, shorten
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.search import page_worker
from rsearch_cli.search.analyzer import split_query, split_words
from rsearch_cli.search.page_client import Page, Unreadable
from rsearch_cli.search.sources import READ_INSTALL
from rsearch_cli.services.outcomes import PermanentFailure

PARSE_SECONDS = 5.0
"""Most processor time to extract the text of a page; a page of 1.5 MB takes 2 seconds."""

WAIT_SECONDS = 3.0
"""Longest wait for it, as a multiple of that: other processes may be busy."""

START_SECONDS = 60.0
"""Longest time for the process that extracts texts to start."""

# BM25 with the usual constants (Robertson and Zaragoza 2009).
_K1, _B = 1.2, 0.75

_GAP = " … "
_SHORT_CHARS = 60
_ENDS = ".!?…。！？"

# Completions of a question ask the same of the same pages, and a long one takes 60 ms.
_MEMOISED = 256

_NOTHING = Page(b"", is_html=True, charset="")
# What Python and dynamic libraries need. No key: the process reads what strangers wrote.
_PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP")


class TextExtractor:
    """Extracts the text of pages, one at a time, in a process that ends if a page takes too long.

    Args:
        seconds: Most processor time for one page.
    """

    def __init__(self, seconds: float = PARSE_SECONDS) -> None:
        self._seconds = seconds
        self._process: Process | None = None
        self._warm = False
        self._turn = asyncio.Lock()

    async def extract(self, page: Page) -> str:
        """Return the text of a page, one paragraph a line.

        Raises:
            Unreadable: It has none, or too much time or memory is needed to find it.
            PermanentFailure: The process does not start, or gets no processor.
        """
        async with self._turn:
            if page.is_html and not self._is_warm:
                await self._warm_up()
            text = await self._ask(page, self._seconds)
        if not text:
            raise Unreadable("there is no text on it")
        return text

    async def close(self) -> None:
        """End the process; a later page starts another one."""
        await self._kill()

    async def _warm_up(self) -> None:
        """Let the process import the parser, which takes longer than most pages."""
        try:
            await self._ask(_NOTHING, START_SECONDS)
        except Unreadable:
            raise PermanentFailure(
                f"the process that extracts texts does not start; install its library again: "
                f"{READ_INSTALL}",
                free=True,
            ) from None
        self._warm = True

    async def _ask(self, page: Page, seconds: float) -> str:
        try:
            async with asyncio.timeout(WAIT_SECONDS * seconds):
                return await _exchange(await self._started(), page, seconds)
        except (asyncio.IncompleteReadError, ConnectionError):
            await self._kill()
            raise Unreadable("its text takes too much time or memory to extract") from None
        except TimeoutError:
            await self._kill()
            raise PermanentFailure("there was no time to extract its text", free=True) from None
        except BaseException:
            await self._kill()  # the answer to this page must not become that to the next
            raise

    @property
    def _is_warm(self) -> bool:
        return self._warm and self._process is not None and self._process.returncode is None

    async def _started(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the folder of the file holds modules with common names
                page_worker.__file__,
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                start_new_session=True,  # Ctrl-C is for this process, which ends that one
            )
        return self._process

    async def _kill(self) -> None:
        process, self._process, self._warm = self._process, None, False
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _exchange(process: Process, page: Page, seconds: float) -> str:
    job = {
        "bytes": len(page.body),
        "seconds": seconds,
        "is_html": page.is_html,
        "charset": page.charset,
    }
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(dump_json(job).encode() + b"\n" + page.body)
    await process.stdin.drain()
    size = int.from_bytes(await process.stdout.readexactly(8), "big")
    return (await process.stdout.readexactly(size)).decode()


@lru_cache(maxsize=_MEMOISED)
def choose_excerpt(text: str, query: str, expansion: tuple[str, ...], most: int) -> str:
    """Return the pieces of a text that match a query best, in their order, as one line.

    Every paragraph is a piece, a long one several; a heading or an item of a list is part of what
    follows. The pieces are ranked by BM25 among themselves, those without a match by how near they
    are to the best one. Where nothing matches, the beginning of the text is returned.

    Args:
        text: One paragraph a line.
        query: The query.
        expansion: Names that were added to the query.
        most: Longest excerpt, in characters.
    """
    if len(whole := flatten(text)) <= most:
        return whole
    pieces = [piece for line in _join_short(text) for piece in _split(line, most // 2)]
    scores = _score(pieces, split_query(" ".join([query, *expansion])))
    best = scores.index(max(scores))
    ranked = sorted(range(len(pieces)), key=lambda n: (-scores[n], abs(n - best), n))
    chosen: list[int] = []
    room = most + len(_GAP)
    for number in ranked:
        room -= len(pieces[number]) + len(_GAP)
        if room < 0:
            break
        chosen.append(number)
    return _join(pieces, sorted(chosen))


def _join_short(text: str) -> list[str]:
    """Return the paragraphs of a text, headings joined with what follows."""
    lines: list[str] = []
    for line in filter(None, map(flatten, text.splitlines())):
        if lines and len(lines[-1]) < _SHORT_CHARS and lines[-1][-1] not in _ENDS:
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    return lines


def _split(line: str, most: int) -> list[str]:
    """Split a line into pieces of at most `most` characters, at sentence ends where possible."""
    pieces = []
    while len(line) > most:
        piece = shorten(line, most).removesuffix("…") or line[:most]
        pieces.append(piece.strip())
        line = line[len(piece) :].lstrip()
    return [*pieces, line] if line else pieces


def _join(pieces: Sequence[str], chosen: Sequence[int]) -> str:
    """Join the chosen pieces, with a mark where something is left out between them."""
    parts = [pieces[number] for number in chosen[:1]]
    for before, number in pairwise(chosen):
        parts += [" " if number == before + 1 else _GAP, pieces[number]]
    return "".join(parts)


def _score(pieces: Sequence[str], query: Sequence[str]) -> list[float]:
    """Return the BM25 score of every piece among all."""
    counts = [Counter(split_words(piece)) for piece in pieces]
    lengths = [sum(count.values()) for count in counts]
    mean = sum(lengths) / max(1, len(pieces)) or 1.0
    scores = [0.0] * len(pieces)
    for word in dict.fromkeys(query):
        found = sum(word in count for count in counts)
        weight = math.log(1.0 + (len(pieces) - found + 0.5) / (found + 0.5))
        for number, count in enumerate(counts):
            if times := count[word]:
                norm = _K1 * (1.0 - _B + _B * lengths[number] / mean)
                scores[number] += weight * times * (_K1 + 1.0) / (times + norm)
    return scores
