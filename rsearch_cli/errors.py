"""Every failure a user can meet, each with its own exit code.

Place in the path: the ground floor; every other module raises these, `app` alone turns them into an
exit code and one line. On failure: this module has none of its own.

A message says what failed, where, the value seen and what to do next, in one line.
"""

import errno


class RsearchError(Exception):
    """Base of all failures that are the user's or the outside world's, not a bug of ours."""

    exit_code = 1


class UsageError(RsearchError):
    """Options or arguments contradict each other, or one of them is missing."""

    exit_code = 2


class RecipeError(RsearchError):
    """A recipe cannot be used: several problems of different kinds, or one of no narrower kind."""

    exit_code = 10


class RecipeNotFound(RecipeError):
    """No recipe has this name or path."""

    exit_code = 11


class RecipeKeyError(RecipeError):
    """A recipe or `--set` names a key that the schema does not have."""

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
    """A row of a question file or corpus is not what its format asks for; the line is named."""

    exit_code = 22


class DataEmpty(DataError):
    """A question set or corpus holds no row that can be used."""

    exit_code = 23


class SourceError(RsearchError):
    """A search source could not be set up or did not answer."""

    exit_code = 40


class AccessDenied(RsearchError):
    """A service refuses the key or the account (401, 402): no retry helps, the run stops."""

    exit_code = 41


class OfflineMiss(RsearchError):
    """An answer is not in the cache, and `cache.mode` is `offline`."""

    exit_code = 42


class ServiceFailure(SourceError):
    """A service did not answer, after all retries."""

    exit_code = 43


class JudgeError(RsearchError):
    """The judge could not be set up, or what it says is no verdict."""

    exit_code = 50


class PolicyError(RsearchError):
    """A model could not be found, loaded or run."""

    exit_code = 60


class OutOfMemory(PolicyError):
    """The device's memory does not hold a step, with half the rows at once either."""

    exit_code = 64


class TrainingIneffective(PolicyError):
    """A run would look healthy and learn nothing: its samples do not come from what is trained."""

    exit_code = 65


class EngineUnavailable(PolicyError):
    """The engine that `rollout.engine` names cannot run here."""

    exit_code = 66


class DoesNotFit(PolicyError):
    """The memory plan of a run is larger than the card, and `--force` was not given."""

    exit_code = 67


class PolicyCollapsed(PolicyError):
    """An alarm went off while training, and `alarms.stop_on_collapse` is set."""

    exit_code = 68


class RunFolderError(RsearchError):
    """A run folder cannot be used."""

    exit_code = 70


class RunFolderUnwritable(RunFolderError):
    """Nothing can be written at the output folder."""

    exit_code = 71


class RunFolderOccupied(RunFolderError):
    """The output folder holds a run already, or files of another kind, or is being worked in."""

    exit_code = 72


class RunUnsaved(RunFolderError):
    """A write to the run folder failed, as on a full disk; what was saved before is whole."""

    exit_code = 73


class BudgetExceeded(RsearchError):
    """The next call could cost more than is left of `budget.max_usd`."""

    exit_code = 80


class FailureShareExceeded(RsearchError):
    """More of a step's searches or verdicts failed than `budget.max_failed_share` allows."""

    exit_code = 81


class Interrupted(RsearchError):
    """Ctrl-C (SIGINT) ended the run; the code is the one that shells give to that signal."""

    exit_code = 130


class HungUp(RsearchError):
    """SIGHUP (a closed terminal, a lost connection) ended the run; the code is that of shells."""

    exit_code = 129


class Terminated(RsearchError):
    """SIGTERM ended the run; the code is the one that shells give to that signal."""

    exit_code = 143


class PublishError(RsearchError):
    """A run could not be published, for a reason of no narrower kind; nothing became visible."""

    exit_code = 90


class PublishDenied(PublishError):
    """The Hub does not know the token (401), or there is none."""

    exit_code = 91


class PublishForbidden(PublishError):
    """The token may not write to that repository (403)."""

    exit_code = 92


class PublishConflict(PublishError):
    """What is on the Hub already stands in the way (409, 412)."""

    exit_code = 93


class PublishThrottled(PublishError):
    """The Hub asks to wait (429), after all retries."""

    exit_code = 94


class PublishUnreachable(PublishError):
    """The Hub cannot be reached, or the connection broke, after all retries."""

    exit_code = 95


class MergeBroken(PublishError):
    """Merged weights do not answer as base and adapter do."""

    exit_code = 96


class NothingToPush(PublishError):
    """The run folder holds no trained adapter."""

    exit_code = 97


class PublishUnsafe(PublishError):
    """A file that would be uploaded holds a key, a path or a pickle, or a needed one is missing."""

    exit_code = 98


class ConverterMissing(PublishError):
    """GGUF was asked for, and llama.cpp's converter is not installed."""

    exit_code = 99


# As torch, its allocators, Triton, cuBLAS and the C++ library say it.
_SHORTAGES = (
    "out of memory",
    "t allocate memory",
    "cannot allocate",
    "not enough memory",
    "bad_alloc",
)


def is_shortage(error: BaseException) -> bool:
    """Whether memory ran out, that of a device or of the machine."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in _SHORTAGES)
    )


def shortage(error: BaseException) -> str:
    """What an error about memory says first: that it is one, and how much was asked for."""
    said = ". ".join(str(error).split(". ")[:2]).rstrip(".")
    return said or "no more can be had from the system"
