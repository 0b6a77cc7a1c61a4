"""The context paragraphs of a question, in whatever form its row stores them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rsearch_cli.questions.rows import Row, shorten
from rsearch_cli.types import Passage

CONTEXTS = ("context", "contexts", "paragraphs", "ctxs", "passages", "documents")
TEXT = (
    *("text", "contents", "content", "paragraph_text", "passage", "paragraph", "body"),
    *("page_content", "document", "chunk", "abstract"),
)
"""Field names of a passage's text."""

Paragraph = tuple[str, list[str]]
"""A title, possibly empty, and sentences."""


def find_paragraphs(row: Row) -> list[Paragraph] | None:
    """Return the paragraphs of a row, or None.

    The forms are HotpotQA's `context` (`{"title": [...], "sentences": [[...]]}` or
    `[[title, [sentence, ...]], ...]`), the same inside FlashRAG's `metadata`, SQuAD's single text
    with the row's `title`, and lists of texts or of objects with title and text, as in MuSiQue.

    Raises:
        DataMalformed: The paragraphs have another form.
    """
    for name in CONTEXTS:
        value = row.fields.get(name)
        if isinstance(value, str) and value.strip():
            title = row.fields.get("title")
            return [(title if isinstance(title, str) else "", [value])]
        if value is not None and not isinstance(value, str):
            return _paragraphs(row, name, value)
    context = read_metadata(row).get("context")
    if isinstance(context, dict) and "title" in context:
        return _paragraphs(row, "context", context)
    return None


def require_paragraphs(rows: Iterable[Row]) -> Iterator[list[Paragraph]]:
    """Yield the paragraphs of every row.

    Raises:
        DataMalformed: A row has none.
    """
    for row in rows:
        found = find_paragraphs(row)
        if found is None:
            raise row.malformed("'context' is missing; without paragraphs there is no corpus")
        yield found


def collect_passages(contexts: Iterable[Iterable[Paragraph]]) -> Iterator[Passage]:
    """Yield each distinct paragraph as a passage of every source.

    The id of a passage is its title; a second text with that title gets the suffix `#2`, which no
    Wikipedia title contains. Paragraphs without a title become `paragraph`, `paragraph#2`, ...
    """
    texts: dict[str, dict[str, None]] = {}
    for paragraphs in contexts:
        for title, sentences in paragraphs:
            text = " ".join(s.strip() for s in sentences if s.strip())
            known = texts.setdefault(title, {})
            if text in known:
                continue
            known[text] = None
            name, number = title or "paragraph", len(known)
            yield Passage(name if number == 1 else f"{name}#{number}", title, text)


def read_supporting_titles(row: Row) -> tuple[str, ...]:
    """Return the titles of a row's evidence, each once; () if there are none.

    Raises:
        DataMalformed: `supporting_titles` or `supporting_facts` has an unknown form.
    """
    titles = row.fields.get("supporting_titles")
    if titles is not None:
        if not isinstance(titles, list) or not all(isinstance(title, str) for title in titles):
            raise row.malformed(
                f"'supporting_titles' must be a list of strings, not {shorten(titles)}"
            )
        return tuple(titles)
    facts = row.fields.get("supporting_facts")
    if facts is not None:
        pairs = _pairs(row, "supporting_facts", facts, "sent_id")
        return tuple(dict.fromkeys(title for title, _ in pairs))
    return _titles_in_metadata(read_metadata(row).get("supporting_facts"))


def read_metadata(row: Row) -> Mapping[str, Any]:
    """Return the object at `metadata`; empty if there is none."""
    metadata = row.fields.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _paragraphs(row: Row, name: str, value: Any) -> list[Paragraph]:
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return [("", [text]) for text in value]
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return [_paragraph(row, name, entry) for entry in value]
    second = "sentences"
    if isinstance(value, dict) and second not in value:
        second = "content"
    pairs = _pairs(row, name, value, second)
    for title, sentences in pairs:
        if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
            raise row.malformed(
                f"'{name}': the sentences of {shorten(title)} must be a list of strings, "
                f"not {shorten(sentences)}"
            )
    return pairs


def _paragraph(row: Row, name: str, entry: dict[str, Any]) -> Paragraph:
    inner = Row(row.origin, row.place, entry)
    title, (key, text) = entry.get("title"), inner.find(TEXT)
    if key is None or not isinstance(text, str):
        raise row.malformed(f"'{name}': {shorten(entry)} has no text")
    return (title if isinstance(title, str) else "", [text])


def _pairs(row: Row, name: str, value: Any, second: str) -> list[tuple[str, Any]]:
    """Return the `(title, ...)` pairs of `supporting_facts` or `context` in either form."""
    given = value
    if isinstance(value, dict):
        titles, others = value.get("title"), value.get(second)
        if isinstance(titles, list) and isinstance(others, list) and len(titles) == len(others):
            value = list(zip(titles, others, strict=True))
    if not isinstance(value, list) or not all(_is_pair(entry) for entry in value):
        raise row.malformed(
            f'\'{name}\' must be {{"title": [...], "{second}": [...]}} with lists of equal length, '
            f"or a list of [title, {second}] pairs; it is {shorten(given)}"
        )
    return [(title, other) for title, other in value]


def _is_pair(entry: object) -> bool:
    return isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str)


def _titles_in_metadata(facts: object) -> tuple[str, ...]:
    """Return the evidence titles of FlashRAG rows, which have either of HotpotQA's forms."""
    named = facts.get("title") if isinstance(facts, dict) else None
    if isinstance(facts, list):
        named = [fact[0] for fact in facts if isinstance(fact, list) and fact]
    if not isinstance(named, list) or not all(isinstance(title, str) for title in named):
        return ()
    return tuple(dict.fromkeys(named))
