"""stdout and stderr: every encoding, readers that go away, and rich without markup."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rsearch_cli
from rsearch_cli.streams import open_console
from rsearch_cli.ui.stderr_log import log_to_stderr, show_debug_log

PACKAGE = Path(rsearch_cli.__file__).parent
START = """
from rsearch_cli.streams import *
from rsearch_cli.ui.stderr_log import *
prepare_streams()
shown = log_to_stderr()
shown.__enter__()
tell = logging.getLogger("rsearch_cli.test").info
"""
ANSWER = "Zürich → 東京 “q” │ • 👩‍💻"


def run(script: str, encoding: str = "utf-8", **streams: object) -> subprocess.CompletedProcess:
    """Run a script whose streams are prepared as those of `rsearch` are."""
    return subprocess.run(
        [sys.executable, "-c", START + script],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=False,
        timeout=60,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams),
    )


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "cp437", "utf-8"])
def test_a_result_reaches_a_pipe_of_any_encoding(encoding: str) -> None:
    done = run(f"echo({ANSWER!r})\ntell({ANSWER!r})", encoding)
    assert done.returncode == 0, done.stderr
    out = done.stdout.decode(encoding)
    assert out.startswith("Z") and out.endswith("\n")
    assert done.stderr.decode(encoding) == out
    plain = out.strip().encode("ascii", "backslashreplace").decode("unicode_escape")
    assert plain.replace("->", "→")[:6] == "Zürich", "what the encoding lacks can be recovered"
    if encoding == "ascii":
        start = "Z\\xfcrich > \\u6771\\u4eac \\u201cq\\u201d | * "
        assert out == start + "\\U0001f469\\u200d\\U0001f4bb\n"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_json_is_json_in_any_encoding(encoding: str) -> None:
    value = {"answer": ANSWER, "bad": "\x1b\u202e\ud83d"}
    script = f"from rsearch_cli.ui.output import print_json\nprint_json({value!r})"
    assert json.loads(run(script, encoding).stdout.decode(encoding)) == value


def test_streams_that_are_closed_are_the_null_device(tmp_path: Path) -> None:
    script = f"""
import os, sys
echo("nobody"), tell("nobody"), open_console(stderr=True).print("nobody")
assert sys.stdin.read() == "" and not sys.stdin.isatty()
with open({str(tmp_path / "file")!r}, "w") as file:
    assert file.fileno() > 2
"""
    (tmp_path / "s.py").write_text(START + script)
    command = f'exec "{sys.executable}" "{tmp_path / "s.py"}" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0


def test_messages_that_nobody_reads_end_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    script = """
import sys, warnings
for _ in range(1000):
    tell("a message"); print("of a library", file=sys.stderr); sys.stderr.flush()
warnings.warn("of Python")
open_console(stderr=True).print("of rich")
echo("done")
"""
    done = run(script, stderr=writer)
    os.close(writer)
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_messages_on_a_full_disk_end_nothing() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as full:
        done = run('tell("x"); echo("done")', stderr=full)
        assert (done.returncode, done.stdout) == (0, b"done\n")
        failed = run('echo("x")', stdout=full)
    assert (
        b"RsearchError: the result could not be written to stdout: No space left" in failed.stderr
    )


def test_a_message_cannot_pass_for_another(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("rsearch_cli.test")
    with log_to_stderr():
        logger.info("the service says: no\nrsearch: run folder: /tmp/evil\x1b[2J" + "x" * 100_000)
        logger.error("recipe x has 2 problems:\n  one\n  two")
    long, *lines = capsys.readouterr().err.splitlines()
    start = "the service says: no rsearch: run folder: /tmp/evil\ufffd[2Jxxx"
    assert long.startswith(start) and len(long) < 2100
    assert lines == ["rsearch: recipe x has 2 problems:", "  one", "  two"]


def test_rich_reads_no_markup_and_prints_no_control_character() -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    console = open_console(file=io.StringIO(), width=60)
    table = Table("[/]", title="[bold]t\x1b[2J[/nope]")
    table.add_row("[/red] :smile: \x1b]0;t\x07 \u202e")
    console.print(table, "[/]\x9b31m", Text("a\u200bb"), Panel(Text("\x07")))
    console.rule("[/]\x1b")
    written = console.file.getvalue()
    assert "[/red] :smile: \ufffd]0;t" in written and "ab" in written
    assert not set(written) & set("\x1b\x07\x9b\u202e\u200b")


def test_the_debug_log_is_shown_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("rsearch_cli.unsloth")
    with log_to_stderr():
        logger.debug("nothing yet")
        show_debug_log()
        logger.debug("a banner\x1b[2J")
    logger.debug("another")
    out, err = capsys.readouterr()
    assert out == ""
    time, line = err.split(" ", 1)
    assert re.fullmatch(r"\d\d:\d\d:\d\d", time)
    assert line == "rsearch_cli.unsloth: a banner\ufffd[2J\n"


def test_warnings_and_errors_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("rsearch_cli.test")
    with log_to_stderr():
        logger.info("loading")
        logger.warning("100% of the rows are empty")
        logger.error("it failed")
    assert capsys.readouterr().err.splitlines() == [
        "loading",
        "warning: 100% of the rows are empty",
        "rsearch: it failed",
    ]


def test_only_the_main_process_writes_messages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    logger = logging.getLogger("rsearch_cli.test")
    with log_to_stderr():
        logger.warning("the key is refused")
        logger.error("no GPU here")
    assert capsys.readouterr().err == "rsearch: no GPU here\n"


def test_messages_go_through_a_live_display(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.live import Live

    drawn = io.StringIO()
    console = open_console(file=drawn, force_terminal=True, width=60)
    with Live("a bar", console=console), log_to_stderr():
        logging.getLogger("rsearch_cli.test").warning("above the bar")
    assert "warning: above the bar" in drawn.getvalue()
    assert "above the bar" not in capsys.readouterr().err


def test_a_library_prints_nothing_of_its_own() -> None:
    script = """
import logging, rsearch_cli
logging.getLogger("rsearch_cli.test").warning("unread")
logging.basicConfig(format="%(name)s %(message)s")
logging.getLogger("rsearch_cli.test").warning("read")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"rsearch_cli.test read\n")


def exits(tree: ast.AST) -> list[str]:
    """Calls that print without `streams`, and the imports of what prints."""
    found = []
    for node in ast.walk(tree):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called in ("print", "Console", "typer.secho", "traceback.print_exc", "warnings.warn"):
            found.append(called)
        if called.endswith(("typer.echo", "click.echo", "print_exception", "os.write")):
            found.append(called)
        if called.startswith(("sys.std", "sys.__std")) and ".write" in called:
            found.append(called)
    return found


# `spend` writes its file by descriptor; `screen` and `output` what they made printable.
ALLOWED = {
    "streams.py": None,
    "ui/stderr_log.py": {"sys.stderr.write"},
    "services/spend.py": {"os.write"},
    "serving/mcp_stdio.py": {"os.write"},
}
RAW = {"streams.py", "session/screen.py", "ui/output.py"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.name))
def test_every_module_prints_through_streams(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    allowed = ALLOWED.get(name, set())
    source = path.read_text(encoding="utf-8")
    if allowed is not None:
        assert set(exits(ast.parse(source))) <= allowed
    if name not in RAW:
        assert "write_stdout" not in source


@pytest.mark.parametrize(
    "source",
    [
        "print(x)",
        "typer.echo(x, err=True)",
        "import sys\nsys.stderr.write(x)",
        "from rich.console import Console\nConsole().print(x)",
    ],
)
def test_the_check_for_exits_sees(source: str) -> None:
    assert exits(ast.parse(source))
