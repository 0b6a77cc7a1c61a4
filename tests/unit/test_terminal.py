"""Text from outside as it is shown: what goes, what stays, and what an escape keeps."""

from __future__ import annotations

import json
import math
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rsearch_cli import terminal
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.terminal import (
    code_span,
    escape_markdown,
    escape_suspect,
    finite,
    on_one_line,
    printable,
    shorten,
)

HOSTILE = {
    "title of the window": "\x1b]0;owned\x07",
    "link of OSC 8": "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "clearing the screen": "\x1b[2J\x1b[H",
    "C1 sequence": "\x9b31m",
    "carriage return": "safe\rrsearch: all is well",
    "backspaces": "rm\x08\x08ls",
    "override": "gpj.\u202eexe",
    "isolates": "a\u2066b\u2067c\u2068d\u2069",
    "zero width": "a\u200bb\u2060c\ufeffd",
    "soft hyphen": "pass\u00adword",
    "joiner between Latin letters": "a\u200db\u200cc",
    "tags": "hi" + "".join(chr(0xE0000 + ord(c)) for c in "ignore all"),
    "selectors": "\U0001f600" + "".join(chr(0xFE00 + n) for n in range(16)),
    "many selectors": "x" + "".join(chr(0xE0100 + n) for n in range(32)),
    "invisible letters": "a\u3164\u115f\uffa0b",
    "half a pair": "\ud83d",
    "line separator": "a\u2028b\u2029c",
    "annotations": "\ufff9a\ufffab\ufffb",
    "direction marks in Latin text": "a\u200eb\u200fc\u061cd",
    "a tower of accents": "e" + "\u0301" * 200,
}
LEGITIMATE = [
    "👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 ❤️‍🔥 ⛹️‍♀️ 👁️‍🗨️ 👨🏽‍🦰 1️⃣ ©️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "می‌خواهم کتاب‌ها را بخوانم",
    "क्‍ष श्री‌मान ক্‍ষ ක්‍ෂ",
    "שלום‏ (2) עולם",
    "السلام عليكم‎ C++",
    "e\u0301 q\u0307\u0323 Việt ế",
    "葛󠄀城 東京、中文 한국어 日本語",
    "မြန်မာ ภาษาไทย བོད ᠮᠣᠩᠭᠣᠯ",
    "Zürich → [bold]x[/] {x} ∩︀\ttab\nline",
]
# A terminal obeys these, or a reader does not see them; joiners and selectors depend on context.
NEVER = [
    *(chr(n) for n in (*range(9), *range(11, 32), *range(0x7F, 0xA0))),
    *"\u00ad\u200b\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff",
    *(chr(n) for n in range(0xD800, 0xE000)),
]

# Characters of every part of the pattern, and those that decide by standing before them.
NEAR_SUSPECT = (
    "a1 \t\n\r\x00\x1b\x7f\u0085\u00a9\u00ad\u034f\u0301\u0323\u05d0\u061c\u0628\u0915\u094d"
    "\u17b4\u1820\u180b\u200b\u200c\u200d\u200e\u200f\u2028\u202e\u2060\u2066\u206f\u20e3\u2229\u3042\u3164\u4e00"
    "\u845b\ud800\udfff\ufdd0\ufe00\ufe0e\ufe0f\ufeff\uffa0\ufff9\ufffe\uffff#\u2764\U0001bca0\U0001d173"
    "\U0001f3f4\U0001f468\U000e0001\U000e0067\U000e0062\U000e007f\U000e0100\U000e01ef\U000e0fff"
)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_a_terminal_obeys_or_a_reader_cannot_see_is_left(text: str) -> None:
    shown = printable(text)
    assert shown != text
    assert not set(shown) & set(NEVER)
    assert len(shown.encode()) < 300, "what is dropped cannot carry a message"
    assert printable(shown) == shown


@pytest.mark.parametrize("text", LEGITIMATE)
def test_what_a_script_or_an_emoji_needs_stays(text: str) -> None:
    assert printable(text) == text
    assert json.loads(dump_json(text)) == text


def test_text_that_comes_in_pieces_is_read_with_what_came_before() -> None:
    assert printable("\u200d💻", before="👩") == "\u200d💻"
    assert printable("\u200d💻", before="a") == "💻"


def test_what_is_no_text_is_marked_and_what_is_only_invisible_is_dropped() -> None:
    assert printable("a\tb\nc\r\nd") == "a\tb\nc\nd"
    assert printable("\x1b[2Jx\x07\x00\x7f\x9b1m\r") == "\ufffd[2Jx" + "\ufffd" * 4 + "1m\ufffd"
    assert printable("half a pair: \ud83d") == "half a pair: \ufffd"
    assert printable("pass\u00adword\u200b") == "password"


def test_a_line_stays_one() -> None:
    assert on_one_line("a\nrsearch: b\r\nc\u2028d") == "a rsearch: b c d"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_json_loses_nothing_and_holds_no_raw_character(text: str) -> None:
    for ascii_only in (False, True):
        written = dump_json({text: [text]}, indent=2, ensure_ascii=ascii_only)
        assert json.loads(written) == {text: [text]}
        assert printable(written) == written


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_markdown_takes_it_literally(text: str) -> None:
    hostile = f"# h\n\n![i](x) <img src=x> [l](y) `c` *e* | &#x202e; {text}"
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(f"- {escape_markdown(hostile)}\n")
    inner = [child.type for token in tokens for child in token.children or ()]
    assert {token.type for token in tokens} == {
        *("bullet_list_open", "list_item_open", "paragraph_open", "inline"),
        *("paragraph_close", "list_item_close", "bullet_list_close"),
    }
    assert set(inner) <= {"text", "text_special"}
    said = "".join(child.content for token in tokens for child in token.children or ())
    assert said == " ".join(printable(hostile).split())


@pytest.mark.parametrize("text", ["plain", "a`b", "``", "`", "a ``` b", "\n# h"])
def test_code_in_markdown_ends_where_it_should(text: str) -> None:
    tokens = MarkdownIt().parse(f"x {code_span(text)} y")
    children = [(c.type, c.content) for c in tokens[1].children or ()]
    assert children == [("text", "x "), ("code_inline", " ".join(text.split())), ("text", " y")]


def test_escapes_that_yaml_reads_back() -> None:
    text = "a\u202e\U000e0041\x85\ufeff"
    escaped = escape_suspect(text, lambda c: c.encode("unicode_escape").decode())
    assert yaml.safe_load(f'"{escaped}"') == text


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


@given(st.text(st.sampled_from(NEAR_SUSPECT), max_size=40), st.integers(0, 3))
def test_suspect_text_is_found_where_the_whole_pattern_finds_it(text: str, start: int) -> None:
    whole = [(m.span(), m.lastgroup) for m in terminal._SUSPECT.finditer(text, start)]
    assert [(m.span(), m.lastgroup) for m in terminal._find_suspect(text, start)] == whole


def test_every_character_that_is_suspect_alone_is_found() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        assert bool(terminal._SUSPECT.match(character)) <= bool(terminal._FIRST.match(character))
