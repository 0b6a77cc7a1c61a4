"""Published figures of comparable systems, with what differs from an evaluation here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

_SETTING = (
    "wiki18_100w (Wikipedia), E5-base-v2, 5 passages, no judge; split not stated (FlashRAG has "
    "only train and dev)"
)
_IN_DOMAIN = f"{_SETTING}; trained on train questions of HotpotQA and 2WikiMultiHopQA"
_SOURCE = (
    "README of RUC-NLPIR/FlashRAG at commit 01ff627, measured by its authors; training of "
    "R1-Searcher: README of RUCAIBox/R1-Searcher at commit 88e2a97; read on 2026-11-27 from stored "
    "copies"
)


@dataclass(frozen=True, slots=True)
class PublishedFigure:
    """A score that somebody else reports for a question set.

    Attributes:
        questions: Name of the question set, as in `flashrag:NAME`.
        system: What was measured.
        model: The model it used.
        f1: Token F1 in [0, 1].
        setting: Corpus, retriever, number of passages, judge and questions.
        source: Where the figure is from, and when it was read.
    """

    questions: str
    system: str
    model: str
    f1: float
    setting: str = _SETTING
    source: str = _SOURCE


_LLAMA, _QWEN = "Llama-3-8B-Instruct", "trained Qwen2.5-7B"
_R1_SEARCHER = "R1-Searcher (arXiv 2503.05592)"

FIGURES = (
    PublishedFigure("hotpotqa", "no retrieval", _LLAMA, 0.284),
    PublishedFigure("hotpotqa", "standard RAG", _LLAMA, 0.353),
    PublishedFigure("hotpotqa", "IRCoT (ACL 2023.acl-long.557)", _LLAMA, 0.415),
    PublishedFigure("hotpotqa", _R1_SEARCHER, _QWEN, 0.595, _IN_DOMAIN),
    PublishedFigure("2wikimultihopqa", "no retrieval", _LLAMA, 0.339),
    PublishedFigure("2wikimultihopqa", "standard RAG", _LLAMA, 0.210),
    PublishedFigure("2wikimultihopqa", "IRCoT (ACL 2023.acl-long.557)", _LLAMA, 0.324),
    PublishedFigure("2wikimultihopqa", _R1_SEARCHER, _QWEN, 0.555, _IN_DOMAIN),
)


def find_published(source: str) -> list[dict[str, Any]]:
    """Return the figures for a `questions.source`: `hotpotqa`, `flashrag:hotpotqa` and so on."""
    first, _, second = source.partition(":")
    name = second if first == "flashrag" else first
    return [asdict(figure) for figure in FIGURES if figure.questions == name]
