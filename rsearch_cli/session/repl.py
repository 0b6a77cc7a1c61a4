"""The read-eval-print loop of `rsearch infer`: questions and slash commands.

The model is trained on single questions, and its context is short: a follow-up question is
rewritten into one of its own, and earlier turns are not put into the context.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from rsearch_cli.errors import RsearchError
from rsearch_cli.rollout.answer import AgentAnswer, cannot_write, count, save_answers
from rsearch_cli.runs.file_locks import allow_waits
from rsearch_cli.session.input import LineInput
from rsearch_cli.session.screen import Screen, citation_line, plan_lines, trace_lines
from rsearch_cli.workflows.ask import Agent

logger = logging.getLogger(__name__)

# A question may start with a path such as /etc/hosts.
_COMMAND = re.compile(r"/(\w*)(?:\s+(.*))?")
_KEYS = """\
Alt-Enter inserts a line break; the arrow keys recall earlier questions.
Ctrl-C stops an answer. Ctrl-D, or Ctrl-C twice at an empty prompt, leaves."""
_AUTHOR_WIDTH = len("prompt")


class Leave(Exception):
    """Raised by /quit."""


class Session:
    """Questions, and commands about their answers.

    Args:
        agent: Answers the questions.
        screen: Shows the answers.
    """

    def __init__(self, agent: Agent, screen: Screen) -> None:
        self._agent = agent
        self._screen = screen
        self._conversation = agent.start_conversation()
        self._answers: list[AgentAnswer] = []
        self._saved: set[Path] = set()

    def run(self, entries: LineInput) -> None:
        """Read and answer entries until the end of input or /quit."""
        self.greet()
        while (entry := entries.read()) is not None:
            try:
                self.take(entry.strip())
            except Leave:
                return
            except KeyboardInterrupt:
                allow_waits()
                self._screen.give_up()
                self._screen.print("stopped", fg="yellow")

    def greet(self) -> None:
        """Show which agent answers, and how to start."""
        agent = self._agent
        sources = ", ".join(agent.recipe.search.sources)
        self._screen.print(f"{agent.name}, searching {sources}. Type a question, /help or /quit.")
        if agent.examples:
            self._screen.print(
                f"Its sources cover a fictional world only. For example, ask: {agent.examples[0]}"
            )

    def take(self, entry: str) -> None:
        """Answer a question or execute a command.

        Raises:
            Leave: On /quit.
        """
        command = _COMMAND.fullmatch(entry)
        if command:
            self._execute(command[1], (command[2] or "").strip())
        elif entry:
            self._ask(entry)

    def _ask(self, question: str) -> None:
        try:
            answer = self._conversation.ask(
                question, self._screen, on_asked=self._screen.show_question
            )
        except RsearchError as error:
            self._screen.give_up()
            logger.error(str(error))
            return
        self._answers.append(answer)
        self._screen.finish(answer)

    def _execute(self, name: str, argument: str) -> None:
        if name not in COMMANDS:
            near = get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
            hint = f"did you mean /{near[0]}?" if near else "/help lists all commands"
            self._screen.print(f"unknown command /{name}; {hint}", fg="yellow")
            return
        COMMANDS[name][0](self, argument)

    def _last(self) -> AgentAnswer | None:
        if not self._answers:
            self._screen.print("no question has been answered yet", fg="yellow")
            return None
        return self._answers[-1]

    def show_sources(self, argument: str) -> None:
        """Show the passages found for the last answer."""
        if answer := self._last():
            for citation in answer.citations:
                self._screen.print(citation_line(citation), bold=citation.contains_answer)
                self._screen.print(f"    {citation.shown}")
            if not answer.citations:
                self._screen.print("the model was given no passages")

    def show_plan(self, argument: str) -> None:
        """Show the search plans of the last answer."""
        if answer := self._last():
            for round_ in answer.trajectory.rounds:
                problems = [f"not valid: {problem}" for problem in round_.problems]
                for line in plan_lines(round_.plan) if round_.plan else problems:
                    self._screen.print(line)
            if not answer.trajectory.rounds:
                self._screen.print("the model wrote no plan")

    def show_trace(self, argument: str) -> None:
        """Show the transcript of the last answer and who wrote each line."""
        if answer := self._last():
            for author, line in trace_lines(answer):
                inserted = author != "model"
                self._screen.print(f"{author:<{_AUTHOR_WIDTH}} │ {line}", dim=inserted)

    def save(self, argument: str) -> None:
        """Save all answers of this session to FILE.json or FILE.md."""
        if not argument:
            self._screen.print(
                "/save needs a file name: /save answers.json or /save answers.md", fg="yellow"
            )
        elif self._last():
            try:
                path = Path(argument).expanduser()
                absolute, exists = path.absolute(), path.exists()
            except (OSError, RuntimeError) as error:  # RuntimeError: unknown ~user
                self._screen.print(cannot_write(argument, error), fg="yellow")
                return
            if exists and absolute not in self._saved:
                self._screen.print(f"{path} already exists; choose another name", fg="yellow")
            elif problem := save_answers(path, self._answers):
                self._screen.print(problem, fg="yellow")
            else:
                self._saved.add(absolute)
                answers = count(len(self._answers), "answer", "answers")
                self._screen.print(f"saved {answers} to {path}")

    def write_paragraph(self, argument: str) -> None:
        """Write a long answer to the last question."""
        if answer := self._last():
            self._answers[-1] = replace(answer, paragraph=self._agent.write_paragraph(answer))
            self._screen.show_paragraph(self._answers[-1])

    def start_afresh(self, argument: str) -> None:
        """Start a new conversation, without the earlier turns."""
        self._conversation = self._agent.start_conversation()
        self._screen.print("new conversation")

    def show_help(self, argument: str) -> None:
        """List the commands."""
        for name, (action, usage) in COMMANDS.items():
            first = (action.__doc__ or "").splitlines()[0]
            self._screen.print(f"{'/' + name + usage:<12}{first}")
        self._screen.print(self._agent.describe_follow_ups())
        for line in _KEYS.splitlines():
            self._screen.print(line)

    def leave(self, argument: str) -> None:
        """Leave the session."""
        raise Leave


COMMANDS: Mapping[str, tuple[Callable[[Session, str], None], str]] = MappingProxyType(
    {
        "sources": (Session.show_sources, ""),
        "plan": (Session.show_plan, ""),
        "trace": (Session.show_trace, ""),
        "paragraph": (Session.write_paragraph, ""),
        "save": (Session.save, " FILE"),
        "new": (Session.start_afresh, ""),
        "help": (Session.show_help, ""),
        "quit": (Session.leave, ""),
    }
)
"""Name to method and arguments; the first line of the docstring is its help text."""
