"""Contexts: the paragraphs that come with a question, wherever its set keeps them.

Place in the path: between the rows of a question file and `hotpotqa.collect_passages`, which makes
a corpus of them. On failure: `DataMalformed` names a row without paragraphs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rsearch_cli.questions.rows import Row, shorten


def find_context(row: Row) -> Row | None:
    """The row with its paragraphs in HotpotQA's `context`; None if it has none.

    FlashRAG keeps them inside `metadata` and calls the sentences `content`.
    """
    if row.fields.get("context") is not None:
        return row
    context = read_metadata(row).get("context")
    if not isinstance(context, dict) or "title" not in context:
        return None
    sentences = context.get("sentences", context.get("content"))
    fields = {"context": {"title": context["title"], "sentences": sentences}}
    return Row(row.origin, row.place, {"id": row.fields.get("id"), **fields})


def require_contexts(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield every row with its paragraphs in HotpotQA's `context`.

    Raises:
        DataMalformed: A row has none.
    """
    for row in rows:
        found = find_context(row)
        if found is None:
            raise row.malformed("'context' is missing: it has no paragraphs to make a corpus of")
        yield found


def read_metadata(row: Row) -> Mapping[str, Any]:
    """The object at `metadata`, empty where there is none.

    Raises:
        DataMalformed: It is no object.
    """
    metadata = row.fields.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise row.malformed(f"'metadata' must be an object, not {shorten(metadata)}")
    return metadata
