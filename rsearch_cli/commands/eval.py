"""`rsearch eval`: how good an agent is, and `rsearch eval compare`: whether another one is better.

Place in the path: a command over `commands.evaluating` and `evaluate.comparison`. On failure:
recipe, question file, corpus, model and output folder are checked before the model is loaded; what
was answered before a failure is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsearch_cli.commands.options import (
    SERVICES_PANEL,
    CacheDir,
    EndpointModel,
    EndpointUrl,
    ExaKey,
    Json,
    Model,
    OpenaiKey,
    OptionalRecipe,
    Overrides,
    TrustRemoteCode,
    TrustSettings,
    use_services,
)
from rsearch_cli.streams import echo
from rsearch_cli.ui.output import print_json, rich_stdout

if TYPE_CHECKING:
    from rsearch_cli.ui.tables import TableData

eval_app = typer.Typer()

QUESTION_PANEL = "Questions"


@eval_app.callback(invoke_without_command=True)
def evaluate(
    context: typer.Context,
    recipe: OptionalRecipe = None,
    overrides: Overrides = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where it goes; default evals/NAME. It is gone on with.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Start the evaluation there anew.")] = False,
    method: Annotated[
        str, typer.Option(help="rsearch, rag (one search), direct (none), or several: a,b.")
    ] = "rsearch",
    model: Model = None,
    endpoint: EndpointUrl = None,
    endpoint_model: EndpointModel = None,
    data_path: Annotated[
        str | None,
        typer.Option(
            help="Question file; all of it unless --split is given.",
            rich_help_panel=QUESTION_PANEL,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Default: the recipe's evaluate.split.", rich_help_panel=QUESTION_PANEL),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most questions; default the recipe's evaluate.limit, for a file all of it.",
            rich_help_panel=QUESTION_PANEL,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Decides which rows are held out.", rich_help_panel=QUESTION_PANEL),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Questions asked at once; default rollout.micro_batch, at most 32.",
            rich_help_panel=QUESTION_PANEL,
        ),
    ] = None,
    judge: Annotated[
        bool | None,
        typer.Option(
            "--judge/--no-judge",
            help="Default: if the recipe's reward.answer is judge.",
            rich_help_panel=SERVICES_PANEL,
        ),
    ] = None,
    exa_api_key: ExaKey = None,
    openai_api_key: OpenaiKey = None,
    cache_dir: CacheDir = None,
    trust_settings: TrustSettings = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json instead.")] = False,
) -> None:
    """Measure a search agent, and the same model with one search or none.

    Cut off and started again with the same options, it goes on where it was.

    Example: rsearch eval --model runs/quickstart --method rsearch,rag,direct
    """
    if context.invoked_subcommand is not None:
        return
    from rsearch_cli.commands.eval_options import EvalOptions, plan_evaluation
    from rsearch_cli.workflows.evaluate import run_evaluation

    use_services(exa_api_key=exa_api_key, openai_api_key=openai_api_key, cache_dir=cache_dir)
    options = EvalOptions(
        recipe=recipe,
        overrides=overrides or [],
        methods=method,
        model=model,
        endpoint=endpoint,
        endpoint_model=endpoint_model,
        data_path=data_path,
        split=split,
        limit=limit,
        seed=seed,
        batch_size=batch_size,
        judge=judge,
        output_dir=output_dir,
        trust_settings=trust_settings,
        trust_remote_code=trust_remote_code,
    )
    wanted = plan_evaluation(options)
    results = run_evaluation(wanted, overwrite=overwrite)
    if as_json:
        print_json(results)
    else:
        _print_results(results, wanted.output)


@eval_app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Folder, or FOLDER:METHOD.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Folder, or FOLDER:METHOD.")],
    as_json: Json = False,
) -> None:
    """Compare two evaluations of the same questions: differences, tests, and what flipped.

    Example: rsearch eval compare evals/before evals/after
    """
    from rsearch_cli.commands.eval_options import compare_evaluations
    from rsearch_cli.ui.tables import comparison_sheets

    comparisons = compare_evaluations(first, second)
    if as_json:
        print_json(comparisons)
        return
    _print_sheets([s for each in comparisons["methods"] for s in comparison_sheets(each)])
    for line in comparisons["settings"]:
        echo(f"differs: {line}")


def _print_results(results: dict[str, Any], folder: Path) -> None:
    from rsearch_cli.ui.tables import describe_context, result_sheets

    _print_sheets(result_sheets(results))
    for line in describe_context(results["context"]):
        echo(line)
    echo(f"report: {folder / 'report.md'}")


def _print_sheets(tables: Sequence[TableData]) -> None:
    from rsearch_cli.ui.tables import as_table

    with rich_stdout() as console:
        for table_data in tables:
            console.print(as_table(table_data))
            console.print()
