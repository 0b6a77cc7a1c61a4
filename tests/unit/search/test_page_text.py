"""The text of a page in any encoding, hostile pages, and the excerpt that answers a query."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator

import pytest

from rsearch_cli.search import cache_entries, page_worker
from rsearch_cli.search.page_client import PAGE_BYTES, Page, Unreadable
from rsearch_cli.search.page_text import TextExtractor, choose_excerpt
from rsearch_cli.search.page_worker import decode, extract_text
from rsearch_cli.services.outcomes import PermanentFailure

WORDS = "Łódź żółw straße café"


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        (WORDS.encode(), "utf-8"),
        (WORDS.encode(), "iso-8859-1"),  # a wrong label
        (WORDS.encode(), ""),
        (b"\xef\xbb\xbf" + WORDS.encode(), "windows-1252"),
        (WORDS.encode("utf-16"), ""),
        (WORDS.encode("utf-16"), "utf-16"),
        (WORDS.encode("iso-8859-2"), "ISO-8859-2"),
        (WORDS.encode("windows-1250"), "Windows-1250"),
    ],
)
def test_text_is_decoded_as_what_it_is(body: bytes, charset: str) -> None:
    assert decode(body, charset).removeprefix("\ufeff") == WORDS


def test_the_markup_may_name_the_encoding() -> None:
    page = f'<html><head><meta charset="iso-8859-2"></head><body><p>{WORDS}</p></body></html>'
    assert WORDS in extract_text(page.encode("iso-8859-2"), is_html=True)


def test_an_encoding_that_nobody_names_is_guessed() -> None:
    text = "Москва является столицей России и крупнейшим по численности городом страны. " * 5
    assert "столицей России" in decode(text.encode("cp1251"))


@pytest.mark.parametrize(
    "charset", ["zlib_codec", "bz2", "idna", "punycode", "rot13", "no-such", "x" * 99]
)
def test_codecs_that_are_none_of_the_web_are_not_used(charset: str) -> None:
    assert decode("é".encode("latin-1") + b" x" * 30, charset).endswith(" x x")


def test_what_is_no_text_has_none() -> None:
    assert extract_text(b"%PDF-1.7\n" + bytes(range(256)) * 9, is_html=True) == ""
    assert decode("日本".encode("iso-2022-jp") * 9, "iso-2022-jp") == "日本" * 9


def test_a_character_that_is_cut_in_two_is_dropped() -> None:
    assert decode("aé".encode()[:-1]) == "a"


def test_the_text_of_a_page_is_its_paragraphs() -> None:
    page = """<html><head><title>T</title><script>var secret = 1</script><style>p {}</style></head>
    <body><article><h1>Port Ellow</h1><p>Port Ellow is a\n harbour\r\ntown.</p>
    <p>Its mayor is Imre Sandoval.</p><!-- hidden --></article></body></html>"""
    lines = extract_text(page.encode(), is_html=True).splitlines()
    assert lines[-2:] == ["Port Ellow is a harbour town.", "Its mayor is Imre Sandoval."]
    assert "secret" not in " ".join(lines) and "hidden" not in " ".join(lines)


def test_lines_of_plain_text_make_paragraphs() -> None:
    text = extract_text(b"one\ntwo\r\n\r\nthree\n\n\nfour", is_html=False)
    assert text.splitlines() == ["one two", "three", "four"]


def test_the_longest_text_is_the_one_that_is_kept() -> None:
    assert page_worker.TEXT_CHARS == cache_entries.TEXT_CHARS
    assert len(extract_text(b"word " * 100_000, is_html=False)) == cache_entries.TEXT_CHARS


def extract(*bodies: bytes, seconds: float = 5.0) -> list[str]:
    """Extract pages one after the other; what cannot be read gives the reason."""

    async def run() -> list[str]:
        extractor = TextExtractor(seconds)
        found = []
        try:
            for body in bodies:
                try:
                    found.append(await extractor.extract(Page(body, True, "")))
                except (Unreadable, PermanentFailure) as problem:
                    found.append(f"unreadable: {problem}")
        finally:
            await extractor.close()
        return found

    return asyncio.run(run())


GOOD = b"<html><body><p>A harbour town.</p><p>Its mayor is Imre Sandoval.</p></body></html>"
GOOD_TEXT = "A harbour town.\nIts mayor is Imre Sandoval."


def hostile() -> Iterator[bytes]:
    """Pages that keep parsers busy: nested, with many elements, or with many attributes."""
    yield b"<html><body>" + b"<div>" * (PAGE_BYTES // 5)
    yield b"<html><body><p " + b" ".join(b"a%d=1" % i for i in range(200_000)) + b">x</p>"
    yield b"<" * PAGE_BYTES


def test_a_page_that_takes_too_long_is_given_up_and_the_next_one_is_read() -> None:
    started = time.monotonic()
    found = extract(GOOD, *hostile(), GOOD, seconds=1.0)
    assert (found[0], found[-1]) == (GOOD_TEXT, GOOD_TEXT)
    # The latter on a machine that is so busy that the process gets no processor.
    assert {*found[1:-1]} & {
        "unreadable: its text takes too much time or memory to extract",
        "unreadable: there was no time to extract its text",
    }
    assert time.monotonic() - started < 60.0


def test_a_page_without_text_is_unreadable() -> None:
    assert (
        extract(b"<html><body><img src=a></body></html>", b"")
        == ["unreadable: there is no text on it"] * 2
    )


def test_the_process_that_parses_has_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXA_API_KEY", "a-secret-key")

    async def run() -> bytes:
        extractor = TextExtractor()
        await extractor.extract(Page(b"text", False, ""))
        assert extractor._process is not None
        with open(f"/proc/{extractor._process.pid}/environ", "rb") as file:
            environment = file.read()
        await extractor.close()
        return environment

    if not os.path.exists("/proc/self/environ"):
        pytest.skip("needs /proc")
    assert b"a-secret-key" not in asyncio.run(run())


def test_a_library_that_cannot_be_imported_is_not_blamed_on_the_page(tmp_path, monkeypatch) -> None:
    (tmp_path / "trafilatura.py").write_text("raise ImportError('no lxml')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (problem,) = extract(GOOD)
    assert "does not start; install its library again: pip install" in problem


FILLER = "The town has many streets and squares, and a market every week in summer."
TEXT = "\n".join(
    [
        "Port Ellow is a harbour town.",
        *[f"{FILLER} {n}" for n in range(20)],
        "Its mayor is Imre Sandoval, elected in 2011.",
        *[f"{FILLER} {n}" for n in range(20, 40)],
        "The harbour froze in 1904.",
    ]
)


def test_the_paragraphs_that_match_are_chosen_in_their_order() -> None:
    found = choose_excerpt(TEXT, "harbour mayor", (), 150)
    assert found.startswith("Port Ellow is a harbour town. … Its mayor is Imre Sandoval")
    assert len(found) <= 150


def test_names_of_parents_count() -> None:
    assert "Imre Sandoval" in choose_excerpt(TEXT, "elected", ("Imre Sandoval",), 60)


def test_a_heading_belongs_to_what_follows() -> None:
    lines = [f"{FILLER} {n}." for n in range(9)]
    section = ["Mayors", "Imre Sandoval, from 2011."]
    found = choose_excerpt("\n".join([*lines, *section, *lines]), "mayors", (), 99)
    assert "Mayors Imre Sandoval, from 2011." in found


def test_what_is_beside_the_best_match_fills_the_room() -> None:
    lines = [
        f"This is paragraph number {n}, and it is about nothing much at all." for n in range(30)
    ]
    lines[20] = "The mayor of the town is called Imre Sandoval, since the year 2011."
    found = choose_excerpt("\n".join(lines), "mayor", (), 220)
    assert "number 19," in found and "number 21," in found


def test_without_a_match_the_beginning_is_chosen() -> None:
    assert choose_excerpt(TEXT, "zebra", (), 60).startswith("Port Ellow is a harbour town.")


def test_a_short_text_is_returned_whole() -> None:
    assert choose_excerpt("One.\nTwo.", "x", (), 60) == "One. Two."


@pytest.mark.parametrize(
    "text", ["word " * 400, "x" * 3000, "漢字" * 900, "One. Two! " * 300, "\n" * 50]
)
def test_an_excerpt_is_never_too_long_and_only_empty_without_text(text: str) -> None:
    for most in (40, 41, 500):
        found = choose_excerpt(text, "word two 漢字", (), most)
        assert len(found) <= most and bool(found) == bool(text.strip())


def test_the_part_of_a_long_paragraph_that_matches_is_chosen() -> None:
    line = " ".join([FILLER] * 40 + ["The mayor is Imre Sandoval."] + [FILLER] * 40)
    assert "Imre Sandoval" in choose_excerpt(line, "mayor", (), 200)


def test_a_long_text_takes_no_time() -> None:
    started = time.perf_counter()
    choose_excerpt("a b. " * 20_000, "a b c d", ("e f",), 40)
    for _ in range(1000):  # completions of a question ask the same of the same page
        choose_excerpt("word\n" * 20_000, "word", (), 20_000)
    assert time.perf_counter() - started < 5.0
