"""A session: questions and commands, one after another, until the person leaves.

Place in the path: between the reader's lines, the agent and the screen. Each question stands alone:
nothing of the one before is put into the model's context, because it was trained on single
questions and its context is short. On failure: an error of ours is one line, Ctrl-C ends a
question, and the session goes on; whatever else is raised is a bug and ends it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from rsearch_cli.errors import RsearchError
from rsearch_cli.runs.file_locks import allow_waits
from rsearch_cli.session.agent import Agent
from rsearch_cli.session.exchange import Exchange, cannot_write, count, save_exchanges
from rsearch_cli.session.reader import Reader
from rsearch_cli.session.screen import Screen, citation_line, plan_lines, trace_lines

logger = logging.getLogger(__name__)

# A path at the beginning of a question is no command.
_COMMAND = re.compile(r"/(\w*)(?:\s+(.*))?")
_KEYS = """\
Each question stands alone. Alt-Enter begins a new line, the arrows bring back what was asked.
Ctrl-C stops an answer; pressed twice at the empty prompt it leaves, and so does Ctrl-D."""
_AUTHOR_WIDTH = len("prompt")


class Leave(Exception):
    """The person wants to go."""


class Session:
    """One person's questions, and the commands about their answers.

    Args:
        agent: Answers.
        screen: Shows.
    """

    def __init__(self, agent: Agent, screen: Screen) -> None:
        self._agent = agent
        self._screen = screen
        self._exchanges: list[Exchange] = []
        self._saved: set[Path] = set()

    def run(self, reader: Reader) -> None:
        """Read and answer until there is nothing more to read."""
        self.greet()
        while (entry := reader.read()) is not None:
            try:
                self.take(entry.strip())
            except Leave:
                return
            except KeyboardInterrupt:
                allow_waits()
                self._screen.give_up()
                self._screen.say("stopped", fg="yellow")

    def greet(self) -> None:
        """Say who answers, and how to begin."""
        agent, say = self._agent, self._screen.say
        sources = ", ".join(agent.recipe.search.sources)
        say(f"{agent.name}, searching {sources}. /help tells the commands, /quit leaves")
        if agent.examples:
            say(f"It knows nothing but an invented world. Try: {agent.examples[0]}")

    def take(self, entry: str) -> None:
        """Answer a question, or do what a command says.

        Raises:
            Leave: That was the command.
        """
        command = _COMMAND.fullmatch(entry)
        if command:
            self._obey(command[1], (command[2] or "").strip())
        elif entry:
            self._ask(entry)

    def _ask(self, question: str) -> None:
        try:
            exchange = self._agent.ask(question, self._screen)
        except RsearchError as error:
            self._screen.give_up()
            logger.error(str(error))
            return
        self._exchanges.append(exchange)
        self._screen.finish(exchange)

    def _obey(self, name: str, argument: str) -> None:
        if name not in COMMANDS:
            near = get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
            hint = f"did you mean /{near[0]}?" if near else "/help lists them"
            self._screen.say(f"there is no command /{name}; {hint}", fg="yellow")
            return
        COMMANDS[name][0](self, argument)

    def _last(self) -> Exchange | None:
        if not self._exchanges:
            self._screen.say("nothing has been answered yet", fg="yellow")
            return None
        return self._exchanges[-1]

    def show_sources(self, argument: str) -> None:
        """The passages behind the last answer, in full."""
        if exchange := self._last():
            for citation in exchange.citations:
                self._screen.say(citation_line(citation), bold=citation.holds_answer)
                self._screen.say(f"    {citation.shown}")
            if not exchange.citations:
                self._screen.say("it had no passages")

    def show_plan(self, argument: str) -> None:
        """The plans of the last answer."""
        if exchange := self._last():
            for round_ in exchange.trajectory.rounds:
                problems = [f"not valid: {problem}" for problem in round_.problems]
                for line in plan_lines(round_.plan) if round_.plan else problems:
                    self._screen.say(line)
            if not exchange.trajectory.rounds:
                self._screen.say("it made no plan")

    def show_trace(self, argument: str) -> None:
        """The whole transcript; model: what training reaches, system: what was inserted."""
        if exchange := self._last():
            for author, line in trace_lines(exchange):
                inserted = author != "model"
                self._screen.say(f"{author:<{_AUTHOR_WIDTH}} │ {line}", dim=inserted)

    def save(self, argument: str) -> None:
        """FILE.json or FILE.md: everything answered in this session."""
        if not argument:
            self._screen.say("/save needs a file: /save answers.json, or answers.md", fg="yellow")
        elif self._last():
            try:
                path = Path(argument).expanduser()
                absolute, exists = path.absolute(), path.exists()
            except (OSError, RuntimeError) as error:  # the latter for a ~user who is not there
                self._screen.say(cannot_write(argument, error), fg="yellow")
                return
            if exists and absolute not in self._saved:
                self._screen.say(f"{path} exists; give another name", fg="yellow")
            elif problem := save_exchanges(path, self._exchanges):
                self._screen.say(problem, fg="yellow")
            else:
                self._saved.add(absolute)
                answers = count(len(self._exchanges), "answer", "answers")
                self._screen.say(f"saved {answers} to {path}")

    def show_help(self, argument: str) -> None:
        """This list."""
        for name, (action, usage) in COMMANDS.items():
            first = (action.__doc__ or "").splitlines()[0]
            self._screen.say(f"{'/' + name + usage:<12}{first}")
        for line in _KEYS.splitlines():
            self._screen.say(line)

    def leave(self, argument: str) -> None:
        """Leave."""
        raise Leave


COMMANDS: Mapping[str, tuple[Callable[[Session, str], None], str]] = MappingProxyType(
    {
        "sources": (Session.show_sources, ""),
        "plan": (Session.show_plan, ""),
        "trace": (Session.show_trace, ""),
        "save": (Session.save, " FILE"),
        "help": (Session.show_help, ""),
        "quit": (Session.leave, ""),
    }
)
"""Name to what it does and what it takes; the first line of the docstring is its help."""
