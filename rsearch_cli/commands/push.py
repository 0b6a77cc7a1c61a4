"""`rsearch push`: publish a trained agent on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsearch_cli.commands.options import Json, TrustRemoteCode, TrustSettings, switch, value
from rsearch_cli.key_flags import export_keys
from rsearch_cli.streams import echo
from rsearch_cli.ui.output import print_json

if TYPE_CHECKING:
    from rsearch_cli.workflows.publish import PushReport


def push(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    hub_model_id: Annotated[
        str | None,
        value("USER/NAME", "Repository to push to.", show_default="hub.model_id of the run"),
    ] = None,
    what: Annotated[
        list[str] | None,
        value("KINDS", "Comma-separated: adapter, merged, gguf.", show_default="adapter"),
    ] = None,
    base_model: Annotated[
        str | None,
        value("ID", "Hub id of the base model, if the run used a folder."),
    ] = None,
    private: Annotated[bool, switch("--private", "Create a private repository.")] = False,
    revision: Annotated[
        str | None,
        value("BRANCH", "Branch to push to; created if it does not exist."),
    ] = None,
    create_pr: Annotated[
        bool, switch("--create-pr", "Open a pull request instead of committing.")
    ] = False,
    dry_run: Annotated[
        bool,
        switch("--dry-run", "Show the files and the model card without uploading."),
    ] = False,
    hub_token: Annotated[
        str | None,
        value("TOKEN", "Access token for the Hub. Prefer HF_TOKEN."),
    ] = None,
    trust_settings: TrustSettings = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Publish a trained agent: weights, tokenizer, recipe and a model card.

    All files are scanned for keys and local paths and uploaded in one commit.

    Example: rsearch push runs/quickstart --hub-model-id me/my-agent --dry-run
    """
    from rsearch_cli.workflows.publish import publish

    kinds = _read_kinds(what)
    if create_pr and revision:
        raise typer.BadParameter("a pull request always targets main; omit --revision")
    export_keys({"--hub-token": hub_token})
    report = publish(
        run,
        hub_model_id,
        kinds=kinds,
        base_model=base_model,
        private=private,
        revision=revision,
        create_pr=create_pr,
        dry_run=dry_run,
        trust_settings=trust_settings,
        trust_remote_code=trust_remote_code,
    )
    if as_json:
        print_json(report.as_json())
    else:
        _print(report, dry_run)


def _read_kinds(what: list[str] | None) -> tuple[str, ...]:
    from rsearch_cli.publishing.staging import KINDS

    named = [kind.strip() for value in what or ["adapter"] for kind in value.split(",")]
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
        echo(f"dry run: nothing uploaded; the files are in {staged.folder}")
    else:
        echo(f"pushed: {report.pr_url or report.url}")
