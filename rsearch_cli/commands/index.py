"""`rsearch index`: build, check and serve the indexes of a corpus."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from rsearch_cli.commands.options import Json
from rsearch_cli.errors import UsageError
from rsearch_cli.streams import echo
from rsearch_cli.terminal import printable
from rsearch_cli.ui.output import print_json

LOCAL = "127.0.0.1"
PORT = 8002


def index(
    corpus: Annotated[
        Path | None,
        typer.Argument(help='File of passages, such as JSONL with {"id", "title", "text"} rows.'),
    ] = None,
    dense: Annotated[
        str | None,
        typer.Option(
            metavar="ENCODER",
            help="Build the dense index, or serve it, with this sentence-transformers model.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Device of the encoder, such as cuda.", metavar="DEVICE")
    ] = "cpu",
    passage_prefix: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Text before every passage for --dense.",
            show_default="the encoder's own",
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="QUESTIONS",
            help="Count the questions whose titles and answers are in the corpus.",
        ),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Answer POST /retrieve, as Search-R1's retriever does."),
    ] = False,
    host: Annotated[
        str,
        typer.Option(help="Address for --serve; one that others can reach needs RSEARCH_API_KEY."),
    ] = LOCAL,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port for --serve; 0 takes any free port.")
    ] = PORT,
    from_questions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the context paragraphs of these questions to --output as a corpus.",
        ),
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
    """Index a corpus, check what it covers, or serve it to other programs.

    Runs build missing BM25 indexes themselves; use this for large corpora
    and for dense indexes.

    Example: rsearch index corpus.jsonl
    """
    if output is not None and (dense or serve or check):
        raise UsageError("--output is for the BM25 index and for --from-questions")
    if check is not None and (dense or serve):
        raise UsageError("--check looks at the corpus alone; leave out --dense and --serve")
    if (corpus is None) == (from_questions is None):
        raise UsageError("give either CORPUS or --from-questions FILE")
    if from_questions is not None:
        _extract(from_questions, output, as_json)
    elif corpus is not None and serve:
        _serve(corpus, dense, device, host, port)
    elif corpus is not None and check is not None:
        _check(corpus, check, as_json)
    elif corpus is not None:
        _build(corpus, output, dense, device, passage_prefix, as_json)


def _build(
    corpus: Path,
    output: Path | None,
    encoder: str | None,
    device: str,
    passage_prefix: str | None,
    as_json: bool,
) -> None:
    from rsearch_cli.workflows.index import build_dense_index, build_index

    if encoder is None:
        report = build_index(corpus, output)
        setting = f"search.sources.<name>.corpus={output or corpus}"
    else:
        report = build_dense_index(corpus, encoder, device, passage_prefix)
        options = f"type: dense, corpus: {corpus}, options: {{encoder: {encoder}}}"
        setting = f"search.sources.<name>={{{options}}}"
    if as_json:
        print_json(asdict(report))
        return
    how = "already built" if report.was_ready else f"built in {report.seconds} s"
    size = f"{report.passages} passages, {report.bytes / 2**20:.1f} MiB"
    echo(f"{size}, {how}: {report.index}", f"in a recipe: --set {quote(setting)}")


def _check(corpus: Path, questions: Path, as_json: bool) -> None:
    from rsearch_cli.workflows.index import check_coverage

    found = check_coverage(corpus, questions)
    if as_json:
        print_json(asdict(found))
        return
    echo(f"{found.questions} questions, {found.passages} passages")
    if found.with_titles:
        echo(f"all titles of the evidence in the corpus: {found.all_titles} of {found.with_titles}")
    if found.with_answers:
        echo(f"answer in a passage, word for word: {found.answer_found} of {found.with_answers}")
    if found.missing_titles:
        echo(printable(f"missing titles, such as: {'; '.join(found.missing_titles)}"))


def _serve(corpus: Path, encoder: str | None, device: str, host: str, port: int) -> None:
    from rsearch_cli.services.keys import read_key
    from rsearch_cli.serving.retriever_server import serve_source
    from rsearch_cli.serving.server import open_listener
    from rsearch_cli.serving.settings import KEY_VARIABLE
    from rsearch_cli.workflows.index import open_served

    key = read_key(KEY_VARIABLE) or None
    with open_listener(host, port, key) as listener:
        source = open_served(corpus, encoder, device)
        serve_source(source, listener, key, on_ready=echo)


def _extract(questions: Path, output: Path | None, as_json: bool) -> None:
    from rsearch_cli.questions.building import extract_corpus

    if output is None:
        raise UsageError("--from-questions needs --output FILE for the corpus")
    count, passages = extract_corpus(questions, output)
    if as_json:
        result = {"from_questions": str(questions), "corpus": str(output)}
        print_json(result | {"questions": count, "passages": passages})
        return
    echo(
        f"{passages} passages from {count} questions: {output}",
        f"in a recipe: --set {quote(f'search.sources.<name>.corpus={output}')}",
    )
