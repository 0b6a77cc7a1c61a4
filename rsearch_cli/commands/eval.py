"""`rsearch eval`: measure a search agent; its commands compare evaluations and score them anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsearch_cli.commands import options
from rsearch_cli.recipe.flags import flag_names
from rsearch_cli.streams import echo
from rsearch_cli.ui.output import print_json, rich_stdout

if TYPE_CHECKING:
    from rsearch_cli.ui.tables import TableData

eval_app = typer.Typer(add_completion=False)


OutputDir = Annotated[
    Path | None,
    options.value(
        "DIR",
        "Evaluation folder; an evaluation already in it is continued.",
        show_default="evals/NAME",
    ),
]
Overwrite = Annotated[
    bool, options.switch("--overwrite", "Start over if the folder has an evaluation.")
]
Method = Annotated[
    str,
    options.value("NAMES", "Comma-separated: rsearch, rag (one search), direct (none)."),
]
DataPath = Annotated[
    str | None,
    options.value(
        "FILE",
        "Question file; all of it is used unless --split is given.",
        options.QUESTION_PANEL,
        names=flag_names("questions.path"),
    ),
]
Split = Annotated[
    str | None,
    options.value(
        "NAME",
        "Split to evaluate.",
        options.QUESTION_PANEL,
        names=flag_names("evaluate.split"),
        show_default="evaluate.split of the recipe",
    ),
]
Limit = Annotated[
    int | None,
    options.value(
        "N",
        "Maximum number of questions.",
        options.QUESTION_PANEL,
        names=flag_names("evaluate.limit"),
        min=1,
        show_default="evaluate.limit of the recipe, or the whole file",
    ),
]
Seed = Annotated[
    int | None,
    options.value(
        "N",
        "Seed that selects the held-out questions.",
        options.QUESTION_PANEL,
        names=flag_names("seed"),
    ),
]
BatchSize = Annotated[
    int | None,
    options.value(
        "N",
        "Questions asked at once.",
        options.QUESTION_PANEL,
        min=1,
        show_default="rollout.micro_batch of the recipe, at most 32",
    ),
]
Samples = Annotated[
    int | None,
    options.value(
        "K",
        "Sample K answers to each question: avg@K and pass@k.",
        min=1,
        show_default="one greedy answer",
    ),
]
UseJudge = Annotated[
    bool | None,
    options.switch(
        "--judge/--no-judge",
        "Score answers with an LLM judge.",
        options.SERVICES_PANEL,
        show_default="if the recipe's reward uses one",
    ),
]
ResultsJson = Annotated[bool, options.switch("--json", "Print results.json.")]
Suite = Annotated[
    Path | None,
    options.value(
        "FILE",
        "YAML file of several question sets with their settings: one table of all.",
        options.QUESTION_PANEL,
    ),
]
JudgeModel = Annotated[
    str | None,
    options.value(
        "MODEL",
        "Model that judges the answers.",
        options.SERVICES_PANEL,
        show_default="that of the evaluation's recipe, if it has a judge",
    ),
]
RescoredDir = Annotated[
    Path | None,
    options.value(
        "DIR",
        "New evaluation folder; scoring that was begun in it is continued.",
        show_default="FOLDER-rescored",
    ),
]
SIDE_HELP = "Evaluation folder, or FOLDER:METHOD."


@eval_app.callback(invoke_without_command=True)
def evaluate(
    context: typer.Context,
    recipe: options.RunRecipe = None,
    source: options.Source = None,
    overrides: options.Overrides = None,
    output_dir: OutputDir = None,
    overwrite: Overwrite = False,
    method: Method = "rsearch",
    samples: Samples = None,
    model: options.Model = None,
    endpoint: options.EndpointUrl = None,
    endpoint_model: options.EndpointModel = None,
    data_path: DataPath = None,
    split: Split = None,
    limit: Limit = None,
    seed: Seed = None,
    suite: Suite = None,
    batch_size: BatchSize = None,
    judge: UseJudge = None,
    exa_api_key: options.ExaKey = None,
    openai_api_key: options.OpenaiKey = None,
    cache_dir: options.CacheDir = None,
    trust_settings: options.TrustSettings = False,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: ResultsJson = False,
) -> None:
    """Evaluate a search agent, and the same model with one search or none.

    Answers are stored in batches; after an interruption, run the same command
    again to continue.

    Example: rsearch eval --model runs/quickstart --method rsearch,rag,direct
    """
    if context.invoked_subcommand is not None:
        return
    from rsearch_cli.ui.progress import phase
    from rsearch_cli.ui.tables import describe_context, result_tables
    from rsearch_cli.workflows import evaluate as workflow

    options.use_services(
        exa_api_key=exa_api_key, openai_api_key=openai_api_key, cache_dir=cache_dir
    )
    given: dict[str, Any] = {
        "model": model,
        "endpoint": endpoint,
        "endpoint_model": endpoint_model,
        "methods": method,
        "source": source,
        "overrides": overrides or (),
        "split": split,
        "limit": limit,
        "seed": seed,
        "batch_size": batch_size,
        "samples": samples,
        "judge": judge,
        "output_dir": output_dir,
        "overwrite": overwrite,
        "trust_settings": trust_settings,
        "trust_remote_code": trust_remote_code,
        "progress": phase,
    }
    if suite is not None:
        _evaluate_suite(suite, data_path, as_json, {"recipe": recipe, **given})
        return
    report = workflow.evaluate(recipe, data_path=data_path, **given)
    if as_json:
        print_json(report.results)
        return
    _print_tables(result_tables(report.results))
    echo(*describe_context(report.results["context"]), f"report: {report.folder / 'report.md'}")


def _evaluate_suite(
    suite: Path, data_path: str | None, as_json: bool, given: dict[str, Any]
) -> None:
    from rsearch_cli.errors import UsageError
    from rsearch_cli.ui.tables import describe_suite, suite_tables
    from rsearch_cli.workflows.suite import evaluate_suite

    if data_path is not None:
        raise UsageError("--data-path is one question file; name the files of a suite in --suite")
    report = evaluate_suite(suite, **given)
    if as_json:
        print_json(report.results)
        return
    _print_tables(suite_tables(report.results))
    echo(*describe_suite(report.results), f"report: {report.folder / 'suite.md'}")


@eval_app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=SIDE_HELP)],
    second: Annotated[str, typer.Argument(metavar="B", help=SIDE_HELP)],
    as_json: options.Json = False,
) -> None:
    """Compare two evaluations of the same questions.

    Shows the differences with significance tests, and the questions that only one
    of the two answered correctly.

    Example: rsearch eval compare evals/before evals/after
    """
    from rsearch_cli.ui.tables import comparison_tables
    from rsearch_cli.workflows.compare_evaluations import compare_evaluations

    comparisons = compare_evaluations(first, second)
    if as_json:
        print_json(comparisons)
        return
    _print_tables([table for each in comparisons["methods"] for table in comparison_tables(each)])
    echo(*(f"differs: {line}" for line in comparisons["settings"]))


@eval_app.command()
def rescore(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Finished evaluation.")],
    judge: JudgeModel = None,
    overrides: options.Overrides = None,
    output_dir: RescoredDir = None,
    overwrite: Overwrite = False,
    openai_api_key: options.OpenaiKey = None,
    cache_dir: options.CacheDir = None,
    trust_settings: options.TrustSettings = False,
    as_json: options.Json = False,
) -> None:
    """Score the answers of an evaluation anew, without generating.

    The evaluation stays as it is; the new scores go to a folder of their own.
    Verdicts of the same judge are kept, and those in the cache cost nothing.

    Example: rsearch eval rescore evals/quickstart --judge gpt-4o
    """
    from rsearch_cli.ui.progress import phase
    from rsearch_cli.ui.tables import comparison_tables, describe_context, result_tables
    from rsearch_cli.workflows import rescore as workflow

    options.use_services(openai_api_key=openai_api_key, cache_dir=cache_dir)
    scored = workflow.rescore(
        folder,
        judge=judge,
        overrides=overrides or (),
        output_dir=output_dir,
        overwrite=overwrite,
        trust_settings=trust_settings,
        progress=phase,
    )
    if as_json:
        print_json({"results": scored.results, "comparison": scored.comparison})
        return
    _print_tables(result_tables(scored.results))
    compared = scored.comparison["methods"]
    _print_tables([table for each in compared for table in comparison_tables(each)])
    echo(*describe_context(scored.results["context"]))
    echo(*(f"differs: {line}" for line in scored.comparison["settings"]))
    echo(f"report: {scored.folder / 'report.md'}")


def _print_tables(tables: Sequence[TableData]) -> None:
    from rsearch_cli.ui.tables import as_table

    with rich_stdout() as console:
        for table_data in tables:
            console.print(as_table(table_data))
            console.print()
