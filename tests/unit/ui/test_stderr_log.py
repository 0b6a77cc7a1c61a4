"""Messages on stderr: ours in full, those of other libraries only where they matter."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rsearch_cli.ui.stderr_log import log_to_stderr, show_debug_log


@contextmanager
def in_a_new_process() -> Iterator[None]:
    """Messages on stderr, with a root logger without the handlers that pytest gives it."""
    root = logging.getLogger()
    given, root.handlers = root.handlers, []
    try:
        with log_to_stderr():
            yield
        assert root.handlers == []
    finally:
        root.handlers = given


def test_warnings_of_other_libraries_are_no_banner(capsys):
    with in_a_new_process():
        logging.getLogger("rsearch_cli.policy").info("loading builtin:nano")
        logging.getLogger("somelibrary").warning("Skipping import of cpp extensions")
        logging.warning("which calls basicConfig")
    assert capsys.readouterr().err == "loading builtin:nano\n"


def test_errors_of_other_libraries_are_one_line(capsys):
    with in_a_new_process():
        try:
            raise ValueError("no reply")
        except ValueError:
            logging.getLogger("asyncio").exception("a task failed\nsecond line")
    assert capsys.readouterr().err == "warning: asyncio: a task failed\n"


def test_debugging_shows_all_of_it(capsys):
    with in_a_new_process():
        show_debug_log()
        logging.getLogger("somelibrary").warning("Skipping import of cpp extensions")
        try:
            raise ValueError("no reply")
        except ValueError:
            logging.getLogger("asyncio").exception("a task failed")
    shown = capsys.readouterr().err
    assert "libraries: somelibrary: Skipping import of cpp extensions\n" in shown
    assert "ValueError: no reply" in shown
