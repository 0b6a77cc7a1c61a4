"""`rsearch train`: train a search agent, evaluated before and after."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsearch_cli.commands import options
from rsearch_cli.distributed import world_size
from rsearch_cli.streams import echo
from rsearch_cli.ui.output import print_json, rich_stdout
from rsearch_cli.workflows.launch import launch, without_launch_flags

if TYPE_CHECKING:
    from rsearch_cli.workflows.train import TrainingReport


@options.recipe_options()
def train(
    recipe: options.Recipe = None,
    overrides: options.Overrides = None,
    output_dir: Annotated[
        str | None,
        options.value(
            "DIR", "Run folder.", options.RUN_PANEL, show_default="output_dir of the recipe"
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        options.switch("--overwrite", "Replace the run in the folder.", options.RUN_PANEL),
    ] = False,
    resume: Annotated[
        bool,
        options.switch("--resume", "Continue from the last checkpoint.", options.RUN_PANEL),
    ] = False,
    force: Annotated[
        bool,
        options.switch(
            "--force",
            "Train even if the GPU is missing or predicted to be too small.",
            options.RUN_PANEL,
        ),
    ] = False,
    exa_api_key: options.ExaKey = None,
    openai_api_key: options.OpenaiKey = None,
    wandb_api_key: options.WandbKey = None,
    hub_token: options.HubToken = None,
    cache_dir: options.CacheDir = None,
    trust_settings: options.TrustSettings = False,
    trust_remote_code: options.TrustRemoteCode = False,
    num_processes: Annotated[
        int,
        options.value("N", "Number of training processes, one per GPU.", options.RUN_PANEL, min=1),
    ] = 1,
    accelerate_config: Annotated[
        Path | None,
        options.value(
            "FILE",
            "File written by `accelerate config`: FSDP, DeepSpeed, several machines.",
            options.RUN_PANEL,
        ),
    ] = None,
    as_json: Annotated[
        bool, options.switch("--json", "Print summary.json instead of the report.")
    ] = False,
    *,
    settings: Mapping[str, Any],
) -> None:
    """Train a search agent with GRPO, and evaluate it before and after.

    --stage sft trains on recorded rollouts (traces) instead; GRPO can then
    start from the result (policy.adapter). --teacher samples the traces from a
    stronger model. In this stage, --max-steps, --lr, --batch-size and
    --gradient-accumulation-steps set the recipe's sft section.

    A flag overrides the recipe. Brackets show the value used if neither sets one.

    Example: rsearch train --recipe quickstart --max-steps 20
    """
    from rsearch_cli.recipe.flags import keys_of_stage, let_teacher_write
    from rsearch_cli.recipe.loading import load_recipe, peek
    from rsearch_cli.recipe.trust import as_trusted
    from rsearch_cli.recipe.unread import log_notes
    from rsearch_cli.training.resume import require_own_recipe, run_of_recipe
    from rsearch_cli.workflows import train as workflow

    options.use_services(
        exa_api_key=exa_api_key,
        openai_api_key=openai_api_key,
        wandb_api_key=wandb_api_key,
        hub_token=hub_token,
        cache_dir=cache_dir,
    )
    recipe = options.require_recipe(recipe, "train")
    stage = peek("stage", recipe, overrides or (), settings)
    flags = let_teacher_write(keys_of_stage(settings, stage), stage, overrides or ())
    flags = options.with_remote_code(flags, trust_remote_code)
    flags["output_dir"] = output_dir
    loaded = load_recipe(recipe, overrides or (), flags, trusted=as_trusted(trust_settings))
    own = run_of_recipe(recipe) if resume and output_dir is None else None
    folder = own or Path(loaded.recipe.output_dir.replace("{recipe}", loaded.name))
    if resume and not trust_settings and loaded.path.parent.resolve() == folder.resolve():
        require_own_recipe(recipe, overrides or (), flags)
    if world_size() == 1:
        log_notes(loaded, "train")
    if num_processes > 1 or accelerate_config:
        workflow.check(loaded.recipe, force=force)
        arguments = without_launch_flags(sys.argv[1:])
        raise typer.Exit(launch(arguments, num_processes, accelerate_config))
    workflow.train(
        loaded.recipe,
        folder,
        resume=resume,
        overwrite=overwrite,
        force=force,
        on_report=partial(_print, as_json=as_json, show=loaded.recipe.evaluate.show_trajectories),
    )


def _print(report: TrainingReport, as_json: bool, show: int) -> None:
    if as_json:
        print_json(report.summary)
        return
    from rsearch_cli.ui.training_report import print_report

    with rich_stdout() as console:
        print_report(
            console,
            report.summary,
            report.rows,
            report.validations,
            report.before,
            report.after,
            show,
        )
    echo(f"run folder: {report.folder}")
    if report.view:
        echo(f"look into it: open {report.view} in a browser")
