"""Renders the templates of the model card; text from a run is escaped for Markdown.

Every text that a template inserts is escaped, unless a filter has made it a code span or block, or
`raw` marks it as our own or as checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from rsearch_cli.terminal import code_span, escape_markdown, printable

if TYPE_CHECKING:
    from jinja2 import Environment


class _Markdown(str):
    """Text that needs no escaping."""


def render(template: str, **values: Any) -> str:
    """Render a template of the folder `templates`, without white space at its ends."""
    return _environment().get_template(template).render(values).strip()


def fenced(text: str, language: str = "") -> str:
    """Return text as a Markdown code block, whatever backticks it contains."""
    text = printable(text)
    fence = "```"
    while fence in text:
        fence += "`"
    return _Markdown(f"{fence}{language}\n{text.rstrip()}\n{fence}")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_escape,
    )
    environment.filters |= {
        "code": lambda text: _Markdown(code_span(str(text))),
        "count": lambda number, noun: f"{number} {noun}{'' if number == 1 else 's'}",
        "duration": _duration,
        "estimate": _estimate,
        "fenced": fenced,
        "g": lambda number: f"{number:g}",
        "name": lambda path: PurePath(path).name,
        "percent": lambda share: f"{share:.1%}",
        "raw": _Markdown,
        "weights": lambda w: f"{w.answer:g} / {w.plan:g} / {w.format:g}",
    }
    return environment


def _escape(value: Any) -> Any:
    is_text = isinstance(value, str) and not isinstance(value, _Markdown)
    return escape_markdown(value) if is_text else value


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not recorded"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.2f} h"


def _estimate(block: Mapping[str, Any] | None, key: str, sign: str = "-") -> str:
    """Return a mean with its interval, such as `0.458 [0.28, 0.65]`."""
    if not block or block.get(key) is None:
        return "not measured"
    low, high = block["intervals"][key]
    return _Markdown(f"{block[key]:{sign}z.3f} [{low:{sign}z.2f}, {high:{sign}z.2f}]")
