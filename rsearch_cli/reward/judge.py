"""LLM judge: scores answers against their references.

An answer whose verdict could not be obtained after all retries is unscored (None), and counted. A
refused key, an exhausted budget or an offline cache without the verdict ends the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress

from rsearch_cli.errors import BudgetExceeded, JudgeError, ServiceFailure
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.services import JudgeConfig
from rsearch_cli.reward.judge_client import JudgeClient
from rsearch_cli.reward.lexical import normalise_answer
from rsearch_cli.reward.rubric import (
    PROMPT_VERSION,
    Mode,
    NotAVerdict,
    build_messages,
    clean,
    clean_answer,
    read_verdict,
    split_items,
    verdict_schema,
)
from rsearch_cli.services.cache import make_key
from rsearch_cli.services.chat_errors import NothingThere
from rsearch_cli.services.completion import LENGTH, Completion
from rsearch_cli.services.event_loop import finish_all
from rsearch_cli.services.outcomes import PermanentFailure, Reply, TransientFailure
from rsearch_cli.services.runtime import JUDGE, Services
from rsearch_cli.types import Question

VERDICT_TRIES = 3
"""Replies without a verdict after which a request has failed, whatever the recipe's retries: each
one was paid for, and at temperature 0 another one would hardly differ."""

_PROBE = Question("probe", "What is the capital of Australia?", ("Canberra",))
_PROBE_ANSWER = "Sydney"

# What a server adds to the messages: role markers and the schema of the reply.
_FRAME_TOKENS = 128


def open_judge(recipe: Recipe, services: Services) -> AnswerJudge | None:
    """Open the judge of a recipe; None if its answers are scored without one.

    Raises:
        AccessDenied: The judge needs a key and there is none; an offline run needs none.
        JudgeError: Its address is not an http address.
    """
    if recipe.reward.answer != "judge":
        return None
    judge = AnswerJudge(recipe.reward.judge, services)
    if recipe.cache.mode != "offline":
        judge.endpoint.check_key("set reward.judge.base_url to a server of your own")
    return judge


class AnswerJudge(AbstractContextManager["AnswerJudge"]):
    """Scores answers by a model's verdict; each distinct verdict is requested once.

    Attributes:
        endpoint: Client of the judge's server.
        judged: Number of answers that needed a verdict, cached ones included.
        failed: Number of those that remained unscored.
        last_failure: Why the last of those did, in one line; None if there is none.
    """

    def __init__(self, judge: JudgeConfig, services: Services) -> None:
        """Read address and key; nothing is sent.

        Args:
            judge: The recipe's section.
            services: The services of the run.

        Raises:
            JudgeError: The judge's address is not an http address.
        """
        self.endpoint = JudgeClient(judge)
        self.judged = 0
        self.failed = 0
        self.last_failure: str | None = None
        self._judge = judge
        self._client = services.client(JUDGE)
        self._loop = services.loop

    def check(self) -> None:
        """Request one verdict, before anything else is paid for.

        Nothing is sent offline. If the budget does not allow this call, nothing is checked: all
        verdicts may be in the cache.

        Raises:
            JudgeError: The server does not know the model or the address, refuses the request, or
                its reply is not a verdict.
            ServiceFailure: It does not answer.
            AccessDenied: It refuses the key or the account.
        """
        if self._client.may_send:
            with suppress(BudgetExceeded):
                self._loop.run(self._check())

    async def score(self, question: Question, answer: str | None) -> float | None:
        """Return the score of an answer in [0, 1]; None if no verdict could be obtained.

        An empty answer scores 0 without a call, and one that equals a reference scores 1 without a
        call, unless the recipe wants a verdict for it too.

        Raises:
            AccessDenied: The server refuses the key or the account.
            BudgetExceeded: The call could exceed the budget.
            OfflineMiss: The verdict is not in the cache, and the cache mode is offline.
            JudgeError: The server does not know the model or the address.
        """
        given = clean_answer(answer)
        if not given:
            return 0.0
        if self._judge.skip_exact_match and is_exact(self._judge.mode, question, given):
            return 1.0
        self.judged += 1
        try:
            return await self._fetch(question, given)
        except ServiceFailure as failure:
            if isinstance(failure.__cause__, NothingThere):
                raise JudgeError(str(failure)) from None
            self.failed += 1
            self.last_failure = " ".join(str(failure).split())
            return None

    def score_batch(self, pairs: Sequence[tuple[Question, str | None]]) -> list[float | None]:
        """Score answers concurrently, within the limits of the recipe's service.

        Returns:
            One score per pair, in order; see `score`.

        Raises:
            RsearchError: As in `score`, once all calls in flight have finished.
            KeyboardInterrupt: Ctrl-C; calls in flight had `GRACE_SECONDS` to finish.
        """
        return self._loop.run(self._score_all(pairs))

    def close(self) -> None:
        """Close the connections."""
        self._loop.finish(self.endpoint.close())

    def __exit__(self, *error: object) -> None:
        self.close()

    async def _score_all(self, pairs: Sequence[tuple[Question, str | None]]) -> list[float | None]:
        return await finish_all(self.score(question, answer) for question, answer in pairs)

    async def _check(self) -> None:
        try:
            await self._fetch(_PROBE, _PROBE_ANSWER, keep=False)
        except ServiceFailure as failure:
            cause = failure.__cause__
            if isinstance(cause, NothingThere):
                raise JudgeError(f"{failure}{await self.endpoint.describe_models()}") from None
            if isinstance(cause, PermanentFailure):
                raise JudgeError(str(failure)) from None
            raise

    async def _fetch(self, question: Question, given: str, *, keep: bool = True) -> float:
        mode = self._judge.mode
        messages = build_messages(mode, question.text, question.answers, given)
        schema = verdict_schema(mode)
        tries_left = VERDICT_TRIES

        async def ask() -> Reply:
            nonlocal tries_left
            completion = await self.endpoint.request_json(messages, schema)
            try:
                check_verdict(mode, question.answers, completion)
            except NotAVerdict as problem:
                tries_left -= 1
                kind = TransientFailure if tries_left else PermanentFailure
                raise kind(f"the judge's reply is not a verdict: {problem}") from None
            return Reply(completion.text, actual_usd(self._judge, messages, completion))

        key = make_key(
            JUDGE,
            endpoint=self.endpoint.url,
            model=self._judge.model,
            prompt=PROMPT_VERSION,
            mode=mode,
            question=clean(question.text),
            references=[clean(reference) for reference in question.answers],
            answer=given,
            **({} if keep else {"probe": True}),
        )
        answer = await self._client.fetch(
            key,
            ask,
            worst_usd=worst_usd(self._judge, messages),
            ttl_seconds=None if keep else 0.0,  # an old verdict proves nothing
            # A cached reply is parsed as strictly as a new one: it may have been imported.
            read=lambda reply: read_verdict(mode, question.answers, reply),
        )
        score: float = answer.value
        return score


def is_exact(mode: Mode, question: Question, answer: str) -> bool:
    """Return whether an answer equals a reference, so that no verdict is needed.

    In mode `multi` the chosen items must be equal, otherwise the texts as the exact-match metric
    normalises them. A text that normalises to nothing ("The The") equals nothing.
    """
    if mode == "multi":
        items = split_items(answer)
        return bool(items) and any(items == split_items(r) for r in question.answers)
    normalised = normalise_answer(answer)
    return bool(normalised) and any(normalised == normalise_answer(r) for r in question.answers)


def check_verdict(mode: Mode, references: Sequence[str], completion: Completion) -> None:
    """Check that a completion is one complete verdict.

    Raises:
        NotAVerdict: It was cut off, or is not a verdict of the mode.
    """
    if completion.finish == LENGTH:
        raise NotAVerdict(
            "it was cut off at reward.judge.max_output_tokens; raise that limit, for a judge that "
            "thinks first to 2048 or more"
        )
    read_verdict(mode, references, completion.text)


def worst_usd(judge: JudgeConfig, messages: Sequence[Mapping[str, str]]) -> float:
    """Return the highest cost of one attempt, in USD, which the budget reserves.

    Every byte counts as a token: tokenizers with byte fallback never produce more.
    """
    sent = sum(len(message["content"].encode()) for message in messages)
    return _usd(judge, sent + _FRAME_TOKENS, judge.max_output_tokens)


def actual_usd(
    judge: JudgeConfig, messages: Sequence[Mapping[str, str]], completion: Completion
) -> float:
    """Return the cost of an attempt by the server's count, in USD; the highest if it has none.

    Discounts, such as those for cached prompts, are ignored.
    """
    if completion.input_tokens is None or completion.output_tokens is None:
        return worst_usd(judge, messages)
    return _usd(judge, completion.input_tokens, completion.output_tokens)


def _usd(judge: JudgeConfig, input_tokens: int, output_tokens: int) -> float:
    sent = input_tokens * judge.usd_per_million_input_tokens
    return (sent + output_tokens * judge.usd_per_million_output_tokens) / 1e6
