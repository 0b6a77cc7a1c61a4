"""`rsearch doctor`: check this machine and print remedies."""

from __future__ import annotations

import logging
from dataclasses import asdict

import typer

from rsearch_cli.commands.options import Json
from rsearch_cli.streams import echo
from rsearch_cli.ui.output import print_json

logger = logging.getLogger(__name__)

PROBLEMS = 1
_MARKS = {"ok": "ok  ", "note": "note", "problem": "FAIL"}


def doctor(as_json: Json = False) -> None:
    """Check this machine: driver, CUDA, compiler, libraries, disk, keys and the Hub.

    The exit code is 1 if there is a problem. Keys are never printed.

    Example: rsearch doctor
    """
    from rsearch_cli.workflows.doctor import examine_machine

    logger.info("checking this machine; importing torch and Unsloth takes a few seconds")
    checks = []
    for check in examine_machine():
        checks.append(check)
        if not as_json:
            echo(f"{_MARKS[check.status]}  {check.name}: {check.seen}")
            if check.remedy:
                echo(f"      {check.remedy}")
    problems = sum(check.status == "problem" for check in checks)
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        echo(f"{problems or 'no'} problem{'' if problems == 1 else 's'} found")
    if problems:
        raise typer.Exit(PROBLEMS)
