"""Errors that a user can run into, each with its own exit code (docs/exit-codes.md).

Scripts tell failures apart by the code, callers by the type. A message is one line: what failed,
where, the value seen, and what to do next.
"""

import errno


class RsearchError(Exception):
    """Base of all errors whose cause is outside the program; anything else is a bug."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, or its class if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class UsageError(RsearchError):
    """Options or arguments contradict each other, or one of them is missing."""

    exit_code = 2


class RecipeError(RsearchError):
    """A recipe cannot be used: several kinds of problems, or none of the kinds below."""

    exit_code = 10


class RecipeNotFound(RecipeError):
    """No recipe has this name or path."""

    exit_code = 11


class RecipeKeyError(RecipeError):
    """A recipe or `--set` uses an unknown key."""

    exit_code = 12


class RecipeValueError(RecipeError):
    """A value in a recipe is out of range or of the wrong type."""

    exit_code = 13


class DataError(RsearchError):
    """Questions or passages cannot be used."""

    exit_code = 20


class DataNotFound(DataError):
    """A question file, corpus or data set does not exist or cannot be read."""

    exit_code = 21


class DataMalformed(DataError):
    """A row of a question file or corpus is malformed; the message names the line."""

    exit_code = 22


class DataEmpty(DataError):
    """A question set or corpus contains no usable row."""

    exit_code = 23


class SourceError(RsearchError):
    """A search source could not be set up or did not answer."""

    exit_code = 40


class AccessDenied(RsearchError):
    """A service refuses the key or the account (401, 402); retries are pointless."""

    exit_code = 41


class OfflineMiss(RsearchError):
    """`cache.mode` is `offline`, and an answer is not in the cache."""

    exit_code = 42


class ServiceFailure(SourceError):
    """A service did not answer after all retries."""

    exit_code = 43


class AddressUnavailable(RsearchError):
    """A server cannot listen on its address: the port is in use, or the host is not here."""

    exit_code = 44


class JudgeError(RsearchError):
    """The judge could not be set up, or its replies are not verdicts."""

    exit_code = 50


class PolicyError(RsearchError):
    """A model could not be found, loaded or run."""

    exit_code = 60


class QuestionTooLong(PolicyError):
    """The prompt of a question leaves no room for an answer."""


class OutOfMemory(PolicyError):
    """Memory ran out, even with half as many rows at once."""

    exit_code = 64


class TrainingIneffective(PolicyError):
    """The samples do not come from the trained weights, so training would have no effect."""

    exit_code = 65


class EngineUnavailable(PolicyError):
    """The engine named by `rollout.engine` cannot run here."""

    exit_code = 66


class DoesNotFit(PolicyError):
    """The run is predicted not to fit the card, and `--force` was not given."""

    exit_code = 67


class PolicyCollapsed(PolicyError):
    """An alarm was raised during training, and `alarms.stop_on_collapse` is set."""

    exit_code = 68


class RunFolderError(RsearchError):
    """A run folder cannot be used."""

    exit_code = 70


class RunFolderUnwritable(RunFolderError):
    """The output folder cannot be written."""

    exit_code = 71


class RunFolderOccupied(RunFolderError):
    """The output folder contains a run or other files, or another process works in it."""

    exit_code = 72


class RunUnsaved(RunFolderError):
    """A write to the run folder failed; what was saved before is intact."""

    exit_code = 73


class BudgetExceeded(RsearchError):
    """The next call could exceed `budget.max_usd`."""

    exit_code = 80


class FailureShareExceeded(RsearchError):
    """More searches or verdicts of a step failed than `budget.max_failed_share` allows."""

    exit_code = 81


class Interrupted(RsearchError):
    """Ctrl-C (SIGINT) ended the run; the code is the shell's for this signal."""

    exit_code = 130


class HungUp(RsearchError):
    """SIGHUP (a closed terminal or connection) ended the run; the code is the shell's."""

    exit_code = 129


class Terminated(RsearchError):
    """SIGTERM ended the run; the code is the shell's for this signal."""

    exit_code = 143


class PublishError(RsearchError):
    """A run could not be published, for none of the reasons below; nothing became visible."""

    exit_code = 90


class PublishDenied(PublishError):
    """There is no token, or the Hub rejects it (401)."""

    exit_code = 91


class PublishForbidden(PublishError):
    """The token may not write to that repository (403)."""

    exit_code = 92


class PublishConflict(PublishError):
    """Something that is already on the Hub is in the way (409, 412)."""

    exit_code = 93


class PublishThrottled(PublishError):
    """The Hub still asks to wait (429) after all retries."""

    exit_code = 94


class PublishUnreachable(PublishError):
    """The Hub cannot be reached after all retries."""

    exit_code = 95


class MergeBroken(PublishError):
    """Merged weights do not answer as base and adapter together do."""

    exit_code = 96


class NothingToPush(PublishError):
    """The run folder contains no trained adapter."""

    exit_code = 97


class PublishUnsafe(PublishError):
    """A file to upload contains a key, a local path or a pickle, or a required one is missing."""

    exit_code = 98


class ConverterMissing(PublishError):
    """GGUF was requested, and llama.cpp's converter is not installed."""

    exit_code = 99


# Words of torch, its allocators, Triton, cuBLAS and the C++ library.
_SHORTAGES = (
    "out of memory",
    "t allocate memory",
    "cannot allocate",
    "not enough memory",
    "bad_alloc",
)


def is_shortage(error: BaseException) -> bool:
    """Whether a device or the machine ran out of memory."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    message = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in message for words in _SHORTAGES)
    )


def shortage(error: BaseException) -> str:
    """The first two sentences of an out-of-memory error: what failed, and the size requested."""
    summary = ". ".join(str(error).split(". ")[:2]).rstrip(".")
    return summary or "the system has none left"
