"""What reaches a terminal: text without control characters, cut in the middle, finite numbers."""

from __future__ import annotations

import logging
import math

import pytest

from rsearch_cli.terminal import debug_log, finite, printable, shorten


def test_control_characters_are_replaced_and_layout_stays() -> None:
    assert printable("a\tb\nc\r\nd") == "a\tb\nc\nd"
    assert printable("\x1b[2Jx\x07\x00\x7f\x9b1m\r") == "\ufffd[2Jx" + "\ufffd" * 4 + "1m\ufffd"
    assert printable("half a pair: \ud83d") == "half a pair: \ufffd"
    assert printable("Zürich → 東京 [bold]") == "Zürich → 東京 [bold]"


def test_long_text_keeps_both_ends() -> None:
    text = "start " + "x" * 100 + " end"
    assert shorten(text, 20) == "start xxxx […] xxxxxx end"
    assert shorten(text, len(text)) == text


@pytest.mark.parametrize(
    ("value", "number"), [(1, 1.0), (0.5, 0.5), (None, None), ("3", None), (math.nan, None)]
)
def test_only_finite_numbers_are_figures(value: object, number: float | None) -> None:
    assert finite({"reward": value}, "reward") == number


def test_a_missing_figure_is_none() -> None:
    assert finite({"reward": math.inf}, "reward") is None
    assert finite({}, "reward") is None


def test_numbers_of_numpy_count() -> None:
    numpy = pytest.importorskip("numpy")
    assert finite({"reward": numpy.float32(0.5)}, "reward") == 0.5


def test_the_debug_log_is_shown_on_stderr(capsys):
    logger = logging.getLogger("rsearch_cli.unsloth")
    with debug_log():
        logger.debug("a banner")
    logger.debug("another")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(" rsearch_cli.unsloth: a banner\n")
