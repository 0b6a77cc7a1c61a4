"""Processes that start with the training stack loaded: `subprocess.Popen` for commands of ours.

A command that needs the training stack spends seconds of CPU time on imports. Here a server without
threads of its own imports it once and forks for each command, which then runs in a real process:
arguments, environment, streams, signals, exit code and the interpreter's own ending are as always,
but for a KeyboardInterrupt that nothing catches (exit code 1). For tests of what happens at an
import, of the command line in /proc, or of variables that are read as Python or a library starts,
use `subprocess`.
"""

from __future__ import annotations

import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LOADED = (
    "torch transformers peft trl.trainer.grpo_trainer sentence_transformers datasets openai "
    "uvicorn starlette mcp"
)
STREAMS = ("stdin", "stdout", "stderr")
READ_AT_START = ("PYTHON", "HF_", "LANG", "LC_", "OMP_", "MALLOC_")
"""Beginnings of variables that Python, the C library or the training stack reads as it starts."""


class LoadedProcess(subprocess.Popen):
    """A process like that of `subprocess.Popen`, forked from one that has imported `LOADED`.

    `communicate`, `send_signal`, the streams and the rest are those of `Popen`.
    """

    def __init__(
        self, command: Sequence[str], *, take_terminal: bool = False, **options: Any
    ) -> None:
        """Start a command.

        Args:
            command: `[sys.executable, "-m", MODULE, ...]` or `[sys.executable, "-c", CODE, ...]`.
            take_terminal: Begin a session whose terminal is the one that stdin is.
            options: Those of `Popen`, but for functions that run before the command.
        """
        self._take_terminal = take_terminal
        super().__init__(command, **options)

    # Private in `Popen`, and the same in Python 3.11 to 3.13: it starts the process that the rest
    # of the class talks to.
    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        assert args[0] == sys.executable and args[1] in ("-m", "-c") and preexec_fn is None
        environment = dict(os.environ if env is None else env)
        changed = {name for name, _ in environment.items() ^ os.environ.items()}
        early = sorted(name for name in changed if name.startswith(READ_AT_START))
        assert not early, f"{early} count at the start of a process only: use subprocess"
        names = "startupinfo creationflags shell stdin keys out stdout err stderr".split()
        given = dict(zip(names, rest, strict=False))
        streams = [given[name] if given[name] != -1 else n for n, name in enumerate(STREAMS)]
        session = rest[-2] or self._take_terminal
        request = {
            "command": list(map(str, args)),
            "folder": str(cwd or Path.cwd()),
            "environment": environment,
            "session": session,
            "terminal": self._take_terminal,
        }
        self._status, status = os.pipe()
        socket.send_fds(_fork_server(), [json.dumps(request).encode()], [*streams, status])
        os.close(status)
        self.pid = int(os.read(self._status, 10))
        self._child_created = True
        self._close_pipe_fds(*rest[3:9])

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return self._exit_code(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: It still runs after `timeout` seconds.
        """
        if (code := self._exit_code(timeout)) is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def _exit_code(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(os.read(self._status, 10)))
            os.close(self._status)
        return self.returncode


def run_loaded(
    command: Sequence[str],
    *,
    input: str | None = None,
    timeout: float = 300.0,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run(command, capture_output=True)` with a `LoadedProcess`."""
    stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
    pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with LoadedProcess(command, **pipes | options) as process:
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@functools.cache
def _fork_server() -> socket.socket:
    """Start the server; it ends with this process, as the connection does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return ours


def _wait_for_command(channel: socket.socket) -> dict[str, Any]:
    """Fork for each request; returns in the processes that run a command, and nowhere else."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    while True:
        message, received, *_ = socket.recv_fds(channel, 1 << 20, 4)
        if not message:
            os._exit(0)
        *streams, status = received
        if os.fork() == 0:
            channel.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if (pid := os.fork()) == 0:
                os.close(status)
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                    os.close(stream)
                return json.loads(message)
            for stream in (0, 1, 2, *streams):
                os.close(stream)
            os.write(status, b"%10d" % pid)
            os.write(status, b"%10d" % os.waitpid(pid, 0)[1])
            os._exit(0)
        for each in (*streams, status):
            os.close(each)


def _become(request: Mapping[str, Any]) -> None:
    """Take over what a new process gets from the one that starts it."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if request["session"]:
        os.setsid()
    if request["terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # What Python opened as it started remembers what kind of file it was.
    for number, (name, mode) in enumerate(zip(STREAMS, "rww", strict=True)):
        old = getattr(sys, name)
        new = os.fdopen(number, mode, encoding=old.encoding, errors=old.errors, closefd=False)
        if name != "stdin":
            new.reconfigure(line_buffering=name == "stderr" or new.isatty())
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    sys.orig_argv[:] = request["command"]
    sys.argv[:] = request["command"][1:2] + request["command"][3:]


if __name__ == "__main__":
    for name in LOADED.split():
        importlib.import_module(name)
    gc.freeze()  # what is loaded stays shared between the processes
    request = _wait_for_command(socket.socket(fileno=int(sys.argv[1])))
    _become(request)
    what, text = request["command"][1:3]
    if what == "-m":
        runpy.run_module(text, run_name="__main__", alter_sys=True)
    else:
        exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})
