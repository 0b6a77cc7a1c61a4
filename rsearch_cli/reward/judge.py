"""The judge: a language model that scores answers against their references.

Place in the path: between finished trajectories and `composite`, for recipes with `reward.answer:
judge`. What to ask and what counts as a verdict is `rubric`'s, how to send it `chat`'s, whether,
when and for how much the client's. On failure: an answer whose verdict could not be had after all
retries is None, «unscored», and counted; a refused key, a spent budget or an offline cache without
the verdict stops the run.
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
was paid for, and at temperature 0 a further one will hardly differ."""

_PROBE = Question("probe", "What is the capital of Australia?", ("Canberra",))
_PROBE_ANSWER = "Sydney"

# What a server adds to the messages: roles and the marks between them, and the reply's schema.
_FRAME_TOKENS = 128


def open_judge(recipe: Recipe, services: Services) -> AnswerJudge | None:
    """The judge of a recipe, or None if its answers are scored without one.

    Raises:
        AccessDenied: The judge needs a key and there is none; an offline run needs none.
        JudgeError: Its address is none.
    """
    if recipe.reward.answer != "judge":
        return None
    judge = AnswerJudge(recipe.reward.judge, services)
    if recipe.cache.mode != "offline":
        judge.endpoint.check_key()
    return judge


class AnswerJudge(AbstractContextManager["AnswerJudge"]):
    """Scores answers by a model's verdict, each distinct one bought once.

    Attributes:
        endpoint: The server that is asked.
        judged: Answers that a verdict was wanted for, cached ones included.
        failed: Those of them that stayed unscored.
        last_failure: Why the last of these did, in one line, or None.
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
        """Have one verdict given, before anything else is paid for.

        Offline nothing is sent. A budget that does not allow this call is left to the first real
        one: all verdicts may be in the cache.

        Raises:
            JudgeError: The server does not know the model or the address, refuses the request, or
                what it says is no verdict.
            ServiceFailure: It does not answer.
            AccessDenied: The key or the account is refused.
        """
        if self._client.may_send:
            with suppress(BudgetExceeded):
                self._loop.run(self._check())

    async def score(self, question: Question, answer: str | None) -> float | None:
        """Score one answer in [0, 1], or None if no verdict could be had.

        An empty answer is 0 without a call; one that equals a reference is 1 without a call, unless
        the recipe wants a verdict on it too.

        Raises:
            AccessDenied: The key or the account is refused.
            BudgetExceeded: The call could pass the budget.
            OfflineMiss: The cache is offline and does not hold the verdict.
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
        """Score answers at once, as many at a time as the recipe's service allows.

        Returns:
            One score a pair, in order; see `score`.

        Raises:
            RsearchError: As `score` does, once all calls in flight have ended.
            KeyboardInterrupt: Ctrl-C; what was under way had `services.loop.PATIENCE_SECONDS`.
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
            completion = await self.endpoint.complete(messages, schema)
            try:
                check_verdict(mode, question.answers, completion)
            except NotAVerdict as problem:
                tries_left -= 1
                kind = TransientFailure if tries_left else PermanentFailure
                raise kind(f"the judge's reply is no verdict: {problem}") from None
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
            ttl_seconds=None if keep else 0.0,  # a verdict of another day proves nothing
            # A cached reply is read as strictly as a new one: it may have been imported.
            read=lambda reply: read_verdict(mode, question.answers, reply),
        )
        score: float = answer.value
        return score


def is_exact(mode: Mode, question: Question, answer: str) -> bool:
    """Whether an answer plainly equals a reference, so that no verdict is needed.

    In mode `multi` the chosen items must be the same; else the texts must be, as the exact-match
    metric normalises them. A text that normalises to nothing («The The») equals nothing.
    """
    if mode == "multi":
        items = split_items(answer)
        return bool(items) and any(items == split_items(r) for r in question.answers)
    normalised = normalise_answer(answer)
    return bool(normalised) and any(normalised == normalise_answer(r) for r in question.answers)


def check_verdict(mode: Mode, references: Sequence[str], completion: Completion) -> None:
    """Check that a completion is one whole verdict.

    Raises:
        NotAVerdict: It was cut off, or is not what the mode asks for.
    """
    if completion.finish == LENGTH:
        raise NotAVerdict(
            "it was cut off at reward.judge.max_output_tokens; raise that, for a judge that thinks "
            "first to 2048 or more"
        )
    read_verdict(mode, references, completion.text)


def worst_usd(judge: JudgeConfig, messages: Sequence[Mapping[str, str]]) -> float:
    """Most that one attempt can cost, in USD; the budget is held against this.

    Every byte counts as a token: no tokenizer that falls back to bytes makes more.
    """
    sent = sum(len(message["content"].encode()) for message in messages)
    return _usd(judge, sent + _FRAME_TOKENS, judge.max_output_tokens)


def actual_usd(
    judge: JudgeConfig, messages: Sequence[Mapping[str, str]], completion: Completion
) -> float:
    """What an attempt cost by the server's own count, in USD; the worst if it does not count.

    Discounts (for prompts that the server has cached) are left out of account.
    """
    if completion.input_tokens is None or completion.output_tokens is None:
        return worst_usd(judge, messages)
    return _usd(judge, completion.input_tokens, completion.output_tokens)


def _usd(judge: JudgeConfig, input_tokens: int, output_tokens: int) -> float:
    sent = input_tokens * judge.usd_per_million_input_tokens
    return (sent + output_tokens * judge.usd_per_million_output_tokens) / 1e6
