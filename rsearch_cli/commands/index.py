"""`rsearch index`: a BM25 index made ahead of the runs that search it, and a corpus to make it of.

Place in the path: a command over `search.bm25`; a recipe that names the same corpus file, or the
folder given by `--output`, finds the index ready. On failure: the `DataError` of the corpus; half
an index is never left behind.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from rsearch_cli.commands.options import Json
from rsearch_cli.errors import DataError
from rsearch_cli.streams import echo
from rsearch_cli.ui.output import print_json

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 2.0


def index(
    corpus: Annotated[
        Path | None,
        typer.Argument(help='File of passages, such as JSONL with {"id", "title", "text"} a line.'),
    ] = None,
    from_questions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the paragraphs that come with the questions of this file as a corpus, "
            "each once, to --output.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the index; default in the cache folder. Or the corpus file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the BM25 index of a corpus, or a corpus out of questions.

    Example: rsearch index corpus.jsonl
    """
    if corpus is not None and from_questions is None:
        result = _build(corpus, output)
        line = "was ready" if result["was_ready"] else f"built in {result['seconds']} s"
        found = f"{result['passages']} passages, {result['bytes'] / 2**20:.1f} MiB, {line}"
        lines = [f"{found}: {result['index']}", f"in a recipe: {_setting(output or corpus)}"]
    elif corpus is not None or from_questions is None:
        raise typer.BadParameter("give either CORPUS or --from-questions FILE")
    elif output is None:
        raise typer.BadParameter("--from-questions needs the file of the corpus as --output")
    else:
        result = _collect(from_questions, output)
        lines = [
            f"{result['passages']} passages of {result['questions']} questions: {output}",
            f"in a recipe: {_setting(output)}",
        ]
    print_json(result) if as_json else echo(*lines)


def _setting(corpus: Path) -> str:
    return f"--set search.sources.<name>.corpus={corpus}"


def _build(corpus: Path, output: Path | None) -> dict[str, Any]:
    from rsearch_cli.search.bm25 import corpus_key, indexes_folder, prepare_corpus
    from rsearch_cli.search.index_folder import StoredPassages, is_free, is_whole

    started = time.perf_counter()
    if corpus.is_dir():
        raise DataError(f"{corpus} is a folder; give the file of the corpus")
    key = corpus_key(corpus)
    folder = indexes_folder() / key if output is None else output
    if output is not None and not is_free(output):
        raise DataError(f"{output} exists and is no index; name a folder that is not there yet")
    was_ready = output is None and bool(is_whole(folder))
    if not was_ready:
        try:
            prepare_corpus(corpus, folder, _Progress())
        except OSError as error:
            raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error
    return {
        "corpus": str(corpus),
        "index": str(folder),
        "key": key,
        "passages": len(StoredPassages(folder)),
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "was_ready": was_ready,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _collect(questions: Path, output: Path) -> dict[str, Any]:
    from rsearch_cli.questions.contexts import collect_passages, require_paragraphs
    from rsearch_cli.questions.files import write_corpus
    from rsearch_cli.questions.rows import read_rows

    rows = read_rows(questions)
    passages = write_corpus(collect_passages(require_paragraphs(rows)), output)
    return {
        "from_questions": str(questions),
        "corpus": str(output),
        "questions": len(rows),
        "passages": passages,
    }


class _Progress:
    """Lines on stderr about the passages that have been read, one every few seconds."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, count: int) -> None:
        if time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            logger.info(f"{count:,} passages read")
