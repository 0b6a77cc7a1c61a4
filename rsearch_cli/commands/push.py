"""`rsearch push`: publish a trained agent on the Hugging Face Hub.

Place in the path: a command over `pushing`. On failure: nothing becomes visible on the Hub, the run
folder stays as it is, and the same command goes on where the upload stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsearch_cli.commands.keys import keep_keys
from rsearch_cli.commands.options import Json, TrustRemoteCode, TrustSettings
from rsearch_cli.streams import echo
from rsearch_cli.ui.output import print_json

if TYPE_CHECKING:
    from rsearch_cli.workflows.publish import PushReport


def push(
    run: Annotated[Path, typer.Argument(help="The run folder.", show_default=False)],
    hub_model_id: Annotated[
        str | None,
        typer.Option(metavar="USER/NAME", help="Repository; default: the one in the run's recipe."),
    ] = None,
    what: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="adapter, merged or gguf; several by commas or repeated. [default: adapter]",
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Hub id of the base, if the run took it from a folder."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Only you can see the repository.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch to push to; made if missing.")
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show files, sizes and card; upload nothing.")
    ] = False,
    hub_token: Annotated[str | None, typer.Option(help="Better: HF_TOKEN.")] = None,
    trust_settings: TrustSettings = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Publish a trained agent: weights, tokenizer, recipe and a card that the run proves.

    Example: rsearch push runs/quickstart --hub-model-id me/my-agent --dry-run
    """
    from rsearch_cli.publish.hub import Target
    from rsearch_cli.workflows.publish import push_run

    kinds = _read_kinds(what)
    if create_pr and revision:
        raise typer.BadParameter("a pull request goes to main; leave --revision or --create-pr out")
    keep_keys({"--hub-token": hub_token})
    target = Target(hub_model_id, private, revision, create_pr) if hub_model_id else None
    report = push_run(
        run,
        target,
        kinds,
        base_model=base_model,
        dry_run=dry_run,
        trust_settings=trust_settings,
        trust_remote_code=trust_remote_code,
    )
    if as_json:
        print_json(report.as_json())
    else:
        _print(report, dry_run)


def _read_kinds(what: list[str] | None) -> tuple[str, ...]:
    from rsearch_cli.publish.staging import KINDS

    named = [kind.strip() for given in what or ["adapter"] for kind in given.split(",")]
    unknown = [kind for kind in named if kind not in KINDS]
    if unknown:
        raise typer.BadParameter(f"--what {unknown[0]!r}: choose from {', '.join(KINDS)}")
    return tuple(dict.fromkeys(named))


def _print(report: PushReport, dry_run: bool) -> None:
    staged = report.staged
    for name, size in staged.files.items():
        echo(f"{size:>14,}  {name}")
    echo(f"{sum(staged.files.values()):>14,}  bytes in {len(staged.files)} files")
    if dry_run:
        echo("", *staged.card.split("\n"))
        echo(f"dry run: nothing was uploaded; the files are in {staged.folder}")
    else:
        echo(f"pushed: {report.pr_url or report.url}")
