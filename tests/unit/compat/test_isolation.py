from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import warnings

import pytest

from rsearch_cli.compat.isolation import (
    OwnEnvironment,
    output_to_log,
    process_state_kept,
    stdout_to_log,
)

READ = "import os; print(os.environ.get('LIBRARY_SET'), os.environ.get('LIBRARY_CHANGED'))"


def child_environment() -> str:
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_what_a_library_sets_is_seen_by_it_again_and_by_no_child_process(monkeypatch):
    monkeypatch.setenv("LIBRARY_CHANGED", "ours")
    monkeypatch.setenv("LIBRARY_REMOVED", "ours")
    monkeypatch.delenv("LIBRARY_SET", raising=False)
    environment = OwnEnvironment()
    with environment.applied():
        os.environ.update(LIBRARY_SET="1", LIBRARY_CHANGED="theirs")
        del os.environ["LIBRARY_REMOVED"]
    assert child_environment() == "None ours"
    assert os.environ["LIBRARY_REMOVED"] == "ours"
    with environment.applied():
        assert (os.environ["LIBRARY_SET"], os.environ["LIBRARY_CHANGED"]) == ("1", "theirs")
        assert "LIBRARY_REMOVED" not in os.environ
        with environment.applied():
            os.environ["LIBRARY_SET"] = "2"
        assert os.environ["LIBRARY_SET"] == "2", "the inner block is part of the outer one"
    assert child_environment() == "None ours"


def test_an_error_of_the_library_leaves_the_environment_clean(monkeypatch):
    monkeypatch.delenv("LIBRARY_SET", raising=False)
    environment = OwnEnvironment()
    with pytest.raises(ImportError), environment.applied():
        os.environ["LIBRARY_SET"] = "1"
        raise ImportError
    assert "LIBRARY_SET" not in os.environ


def test_banners_go_to_the_debug_log_line_by_line(capsys, caplog):
    caplog.set_level(logging.DEBUG, "rsearch_cli.unsloth")
    with output_to_log("unsloth"):
        print("a banner\nof two lines")
        print("a warning", file=sys.stderr)
    with stdout_to_log("unsloth"):
        print("a note")
        print("ours", file=sys.stderr)
    assert capsys.readouterr() == ("", "ours\n")
    assert caplog.messages == ["a banner", "of two lines", "a warning", "a note"]


def test_an_import_leaves_streams_hooks_loggers_warnings_and_signals_alone():
    root, filters = logging.getLogger(), list(warnings.filters)
    before = (sys.stdout, sys.stderr, sys.excepthook, list(root.handlers), root.level)
    handler = signal.getsignal(signal.SIGTERM)
    with process_state_kept():
        sys.stdout = sys.stderr = None
        sys.excepthook = print
        root.addHandler(logging.NullHandler())
        root.setLevel(1)
        warnings.simplefilter("ignore")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert (sys.stdout, sys.stderr, sys.excepthook, root.handlers, root.level) == before
    assert warnings.filters == filters
    assert signal.getsignal(signal.SIGTERM) is handler
