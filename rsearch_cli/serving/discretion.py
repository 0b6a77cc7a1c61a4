"""Keeps messages of services, which may name their addresses, in the server's log."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TypeVar

from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.events import Event, ResultArrived
from rsearch_cli.services.keys import hide_secrets
from rsearch_cli.types import FollowUp, NodeResult, Paragraph

logger = logging.getLogger(__name__)

SEARCH_FAILED = "the search failed; the server's log says why"
"""What clients get in place of the message of a source."""

NOT_READ = "a page could not be read; the server's log says why"
"""What clients get in place of why a page was not read, which may name inner addresses."""

Written = TypeVar("Written", FollowUp, Paragraph)


def without_reason(written: Written) -> Written:
    """Return what a writer was asked for without why it failed, which is logged."""
    if written.note is None or written.public_note is None:
        return written
    log_failure(written.note)
    return replace(written, note=written.public_note, public_note=None)


def without_details(event: Event) -> Event:
    """Return an event without why its search failed."""
    if not isinstance(event, ResultArrived):
        return event
    return replace(event, result=_hide(event.result))


def without_search_errors(answer: AgentAnswer) -> AgentAnswer:
    """Return an answer without why its searches failed, which is logged."""
    trajectory = answer.trajectory
    results = [result for round_ in trajectory.rounds for result in round_.results]
    reasons = dict.fromkeys((r.node.source, r.error) for r in results if r.error is not None)
    for source, reason in reasons:
        log_failure(f"a search of {source} failed: {reason}")
    for problem in dict.fromkeys(problem for result in results for problem in result.unread):
        logger.info(hide_secrets(f"a page was not read: {problem}"))
    rounds = tuple(
        replace(round_, results=tuple(_hide(result) for result in round_.results))
        for round_ in trajectory.rounds
    )
    return replace(answer, trajectory=replace(trajectory, rounds=rounds))


def log_failure(line: str) -> None:
    """Log what clients are not shown."""
    logger.warning(hide_secrets(line))


def _hide(result: NodeResult) -> NodeResult:
    error = None if result.error is None else SEARCH_FAILED
    return replace(result, error=error, unread=(NOT_READ,) * len(result.unread))
