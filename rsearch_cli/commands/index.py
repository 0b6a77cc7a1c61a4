"""`rsearch index`: build a BM25 index, or extract a corpus from questions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rsearch_cli.commands.options import Json, value
from rsearch_cli.streams import echo
from rsearch_cli.ui.output import print_json


def index(
    corpus: Annotated[
        Path | None,
        typer.Argument(help='File of passages, such as JSONL with {"id", "title", "text"} rows.'),
    ] = None,
    from_questions: Annotated[
        Path | None,
        value("FILE", "Write the context paragraphs of these questions to --output as a corpus."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the index; with --from-questions, the corpus file.",
            show_default="in the cache folder",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the BM25 index of a corpus, or extract a corpus from questions.

    Runs build missing indexes themselves; use this for large corpora.

    Example: rsearch index corpus.jsonl
    """
    if (corpus is None) == (from_questions is None):
        raise typer.BadParameter("give either CORPUS or --from-questions FILE")
    if corpus is not None:
        result, summary = _build(corpus, output)
    elif from_questions is not None and output is not None:
        result, summary = _extract(from_questions, output)
    else:
        raise typer.BadParameter("--from-questions needs --output FILE for the corpus")
    if as_json:
        print_json(result)
    else:
        echo(summary, f"in a recipe: --set search.sources.<name>.corpus={output or corpus}")


def _build(corpus: Path, output: Path | None) -> tuple[dict[str, Any], str]:
    from rsearch_cli.workflows.index import build_index

    report = build_index(corpus, output)
    how = "already built" if report.was_ready else f"built in {report.seconds} s"
    size = f"{report.passages} passages, {report.bytes / 2**20:.1f} MiB"
    return asdict(report), f"{size}, {how}: {report.index}"


def _extract(questions: Path, output: Path) -> tuple[dict[str, Any], str]:
    from rsearch_cli.questions.building import extract_corpus

    count, passages = extract_corpus(questions, output)
    result = {
        "from_questions": str(questions),
        "corpus": str(output),
        "questions": count,
        "passages": passages,
    }
    return result, f"{passages} passages from {count} questions: {output}"
