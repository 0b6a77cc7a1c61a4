"""One HTML file with the page, its scripts and styles, and all data.

It needs no network, and its Content-Security-Policy allows none: scripts and styles are named by
their hashes. Data is base64, so no text in it can end its element.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from rsearch_cli.errors import RunFolderUnwritable
from rsearch_cli.runs.atomic_write import replacing
from rsearch_cli.runs.json_text import dump_json

WEB = Path(__file__).parents[1] / "web"
TEMPLATE = "viewer.html"

MARK = '<meta name="generator" content="rsearch view">'
"""In the head of every file written here."""
_HEAD = 4096

_STYLE = re.compile(r'<link rel="stylesheet" href="/static/([\w.-]+\.css)" ?/?>')
_SCRIPT = re.compile(r'<script type="module" src="/static/([\w.-]+\.js)"></script>')
_IMPORT = re.compile(r'^import\s*\{[^{}]*\}\s*from\s*"\./([\w.-]+\.js)";[ \t]*\n?', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|const|let|class)", re.MULTILINE)


def refuse_foreign(path: Path) -> None:
    """Check that a file can be replaced: it is one of ours, or there is none.

    Raises:
        RunFolderUnwritable: It is something else.
    """
    try:
        with path.open("rb") as file:
            ours = MARK.encode() in file.read(_HEAD)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunFolderUnwritable(
            f"{path} cannot be written: {error.strerror}; choose another file with --output"
        ) from error
    if not ours:
        raise RunFolderUnwritable(
            f"{path} was not written by rsearch view and is not replaced; choose another file with "
            "--output"
        )


def write_file(path: Path, index: Any, parts: Iterator[tuple[str, Any]]) -> None:
    """Write the file, part by part.

    Args:
        path: A file of an earlier call is replaced, in one step.
        index: The index.
        parts: Name (`S-P`) and content of each part; taken one after the other.

    Raises:
        RunFolderUnwritable: It cannot be written, or another file is in its place.
    """
    refuse_foreign(path)
    page = assemble_page()
    try:
        with replacing(path) as made, made.open("w", encoding="utf-8", newline="\n") as file:
            file.write(page.start)
            _write_data(file, "rsearch-index", index)
            file.write(page.script)
            for name, content in parts:
                _write_data(file, f"rsearch-part-{name}", content)
            file.write(page.end)
    except (OSError, ValueError) as error:  # the latter for a null byte in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RunFolderUnwritable(
            f"{path} cannot be written: {reason}; choose another file with --output"
        ) from error


class Page(NamedTuple):
    """A page with everything in it but the data, which stands between its pieces.

    Attributes:
        start: Up to the end of the content.
        script: Follows the index, and runs before the parts are read.
        end: What remains.
    """

    start: str
    script: str
    end: str


def assemble_page(web: Path = WEB) -> Page:
    """Return the page with its styles and scripts in it.

    Args:
        web: Folder of the page, its modules and its styles.
    """
    hashes: dict[str, list[str]] = {"script-src": [], "style-src": []}

    def inline(tag: str, attributes: str, directive: str, text: str) -> str:
        if f"</{tag}" in text.lower():
            raise ValueError(f"the {tag} of the page contains its own end tag")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[directive].append(f"'sha256-{digest}'")
        return f"<{tag}{attributes}>{text}</{tag}>"

    page = _read(web, TEMPLATE)
    page = _STYLE.sub(lambda found: inline("style", "", "style-src", _read(web, found[1])), page)
    entry = _SCRIPT.search(page)
    if entry is None:
        raise ValueError(f"{TEMPLATE} has no module")
    page = page.replace(entry[0], "", 1)
    script = inline("script", ' type="module" async', "script-src", _join(web, entry[1]))
    policy = "; ".join(
        [
            "default-src 'none'",
            *(f"{directive} {' '.join(found)}" for directive, found in hashes.items()),
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ]
    )
    head = f'<head>\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n{MARK}'
    before, body_end, after = page.rpartition("</body>")
    return Page(before.replace("<head>", head, 1), f"{script}\n", body_end + after)


def _write_data(file: IO[str], name: str, content: Any) -> None:
    data = gzip.compress(dump_json(content, separators=(",", ":")).encode(), 6, mtime=0)
    text = base64.b64encode(data).decode()
    file.write(f'<script type="application/octet-stream" id="{name}">{text}</script>\n')


def _join(web: Path, entry: str) -> str:
    """Return a module and those it imports as one, each after what it imports."""
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        if name in texts:
            return
        text = _read(web, name)
        texts[name] = ""
        for imported in _IMPORT.findall(text):
            add(imported)
        texts.pop(name)
        texts[name] = _EXPORT.sub("", _IMPORT.sub("", text))

    add(entry)
    return "\n".join(texts.values())


def _read(web: Path, name: str) -> str:
    return (web / name).read_text(encoding="utf-8")
