"""Blocks of a text that is still being written: the same ones however it is cut into parts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsearch_cli.protocol.tag_stream import Piece, TagStream

TEXT = "<think> a < b </think>\n<search>\nA: x\n</search> so <answer> Rome\r\n</answer>"
BLOCKS = [
    ("think", " a < b "),
    ("", "\n"),
    ("search", "\nA: x\n"),
    ("", " so "),
    ("answer", " Rome\r\n"),
]


def join(pieces: list[Piece]) -> list[tuple[str, str]]:
    joined: list[tuple[str, str]] = []
    for block, text in pieces:
        if joined and joined[-1][0] == block:
            joined[-1] = (block, joined[-1][1] + text)
        else:
            joined.append((block, text))
    return joined


@settings(deadline=None)
@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_the_blocks_do_not_depend_on_the_parts(cuts):
    stream, edges = TagStream(), [0, *sorted(cuts), len(TEXT)]
    pieces = [p for a, b in pairwise(edges) for p in stream.feed(TEXT[a:b])]
    assert join([*pieces, *stream.finish()]) == BLOCKS


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("<think> cut <thi", [("think", " cut <thi")]),
        ("a </answer> b", [("", "a  b")]),
        ("<r> made up </r>", [("result", " made up ")]),
        ("<ANSWER> x", [("answer", " x")]),
        ("<b>no tag</b>", [("", "<b>no tag</b>")]),
    ],
)
def test_what_is_no_block_stays_text(text, blocks):
    stream = TagStream()
    assert join([*stream.feed(text), *stream.finish()]) == blocks


def test_half_a_tag_is_held_back():
    stream = TagStream()
    assert stream.feed("Rome </ans") == [Piece("", "Rome ")]
    assert stream.feed("wer> x") == [Piece("", " x")]


def test_a_block_can_be_entered_late():
    stream = TagStream()
    assert stream.feed("so </thi") == [Piece("", "so ")]
    stream.enter("think")
    assert stream.feed("ng it is, </think> x") == [
        Piece("think", "</thing it is, "),
        Piece("", " x"),
    ]
