"""The `rsearch` command line; the only place where an exception becomes an exit code.

A `RsearchError` is one line on stderr and its own exit code; Ctrl-C is 130, a closed pipe 141, a
usage error 2, and anything else is a bug and 1.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
import typer.main
from typer.core import TyperGroup

from rsearch_cli import __version__
from rsearch_cli.distributed import reported_by_main
from rsearch_cli.errors import OutOfMemory, RsearchError, first_line, is_shortage, shortage
from rsearch_cli.home import provide_home
from rsearch_cli.key_flags import hide_keys
from rsearch_cli.streams import echo, prepare_streams
from rsearch_cli.terminal import printable
from rsearch_cli.ui.stderr_log import log_to_stderr, show_debug_log

logger = logging.getLogger(__name__)

INTERRUPTED = 130
PIPE_CLOSED = 141
USAGE = 2


COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "data": ("data", "data", "Write a question file from a question set."),
    "index": ("index", "index", "Build the search index of a corpus, or a corpus from questions."),
    "preview": (
        "preview",
        "preview",
        "Show what a recipe trains on, and one rollout with its loss mask.",
    ),
    "train": ("train", "train", "Train a search agent with GRPO; evaluate it before and after."),
    "estimate": (
        "estimate",
        "estimate",
        "Predict requests, cost and GPU memory of a training run.",
    ),
    "eval": ("eval", "eval_app", "Evaluate an agent, and its model with one search or none."),
    "push": ("push", "push", "Publish a trained agent on the Hugging Face Hub."),
    "infer": ("infer", "infer", "Ask a search agent, and watch it think, search and answer."),
    "serve": (
        "serve",
        "serve",
        "Serve a search agent to other programs: OpenAI API and MCP.",
    ),
    "view": ("view", "view", "Look into runs and evaluations in a browser."),
    "recipes": ("recipes", "recipes_app", "List the recipes, or show one in full."),
    "cache": ("cache", "cache_app", "Inspect, clear, export or import cached answers."),
    "doctor": ("doctor", "doctor", "Check this machine: driver, CUDA, libraries, disk, keys, Hub."),
}
"""Command to its module in `rsearch_cli.commands`, what to take from it, and its line of help."""


def load_command(name: str) -> Any:
    """Import a command; the others are not, so that `rsearch --help` stays fast."""
    module, attribute, _ = COMMANDS[name]
    found = getattr(import_module(f"rsearch_cli.commands.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        command, found = found, typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        found.command(name)(command)
    loaded = typer.main.get_command(found)
    loaded.name = name
    return loaded


class _Root(TyperGroup):
    """The root command: accepts `--debug` in any position and handles every exception."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and load_command(name), rest

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with log_to_stderr():
            if not _has_working_folder():
                logger.error("the working folder does not exist any more; change to another one")
                raise SystemExit(USAGE)
            provide_home()
            return super().main(*args, **kwargs)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Users append it to the command they have just run.
        if "--debug" in args:
            args = ["--debug", *(arg for arg in args if arg != "--debug")]
        try:
            with _printable_usage_errors():
                return super().parse_args(ctx, args)
        except (RsearchError, BrokenPipeError) as error:
            _end(error, "--debug" in args)
        except OSError as error:
            problem = f"shell completion cannot be installed: {error.strerror}: {error.filename}"
            _end(RsearchError(f"{problem}; print it with --show-completion"), "--debug" in args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _printable_usage_errors():
                return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except (Exception, KeyboardInterrupt) as error:
            _end(error, debug=ctx.params["debug"])


@contextmanager
def _printable_usage_errors() -> Iterator[None]:
    """Make the user's words in Typer's own error messages printable."""
    try:
        yield
    except typer.TyperException as error:
        error.message = printable(error.message)
        raise


def _end(error: BaseException, debug: bool) -> NoReturn:
    """Log the error in one line (with `debug`, after the traceback) and exit."""
    if isinstance(error, BrokenPipeError):
        raise typer.Exit(PIPE_CLOSED)
    if debug:
        logger.debug("the error in full", exc_info=error)
    if isinstance(error, RsearchError):
        line, code = str(error), error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        line, code = "interrupted", INTERRUPTED
    elif isinstance(error, RuntimeError) and "home directory" in str(error):
        # From pathlib; `provide_home` has taken care of the user's own.
        line = "a path starts with ~ and a user that does not exist here; give the full path"
        code = USAGE
    elif isinstance(error, ImportError) and not (error.name or "").startswith("rsearch_cli"):
        line = f"{first_line(error)}: a library does not import; `rsearch doctor` checks them all"
        code = 1
    elif is_shortage(error):
        line, code = f"memory ran out: {shortage(error)}", OutOfMemory.exit_code
    else:
        message = first_line(error) if str(error) else "no message"
        line, code = f"unexpected error: {type(error).__name__}: {message}", 1
        line += "" if debug else "; run again with --debug for the traceback"
    if not reported_by_main():
        logger.error(line)
    raise typer.Exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"rsearch {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=_Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show debug messages, and the traceback of an error.")
    ] = False,
) -> None:
    """Train, evaluate and use search agents.

    Start here: rsearch train --recipe quickstart
    """
    if debug:
        show_debug_log()


for _name, (_, _, _line) in COMMANDS.items():
    app.command(_name, help=_line)(lambda: None)


def _has_working_folder() -> bool:
    """Whether the working folder is there; torch ends the process where it is not."""
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def main() -> None:
    """Run the command line; the entry point of the `rsearch` script."""
    hide_keys()
    prepare_streams()
    app(prog_name="rsearch")
