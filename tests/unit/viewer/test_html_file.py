"""The file: everything in it, nothing from elsewhere, and text that cannot leave its element."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from stored_rows import prediction, rollout

from rsearch_cli.errors import RunFolderUnwritable
from rsearch_cli.viewer.html_file import MARK, assemble_page
from rsearch_cli.workflows.view import write_view

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--<script>",
    "]]>\u2028\u202e\x00\x1b[31m",
    "\ud800 lone",
    "x" * 1_000_000,
]


class Elements(HTMLParser):
    """Tags and attributes of a page, and the text of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = tag in ("script", "style")
        if self._open:
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("script", "style")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[-1] += data


def data_of(path: Path) -> dict[str, object]:
    """The data elements of a file, decoded."""
    form = re.compile(r'<script type="application/octet-stream" id="([\w-]+)">([\w+/=]*)</script>')
    found = form.findall(path.read_text(encoding="utf-8"))
    return {name: json.loads(gzip.decompress(base64.b64decode(text))) for name, text in found}


def test_a_file_holds_index_and_parts(make_run, make_evaluation, tmp_path):
    run = make_run([rollout()], after_greedy=[prediction()])
    path = write_view([run, make_evaluation([prediction()])])
    assert path == run / "view.html"
    data = data_of(path)
    parts = [f"rsearch-part-{name}" for name in ("0-0", "0-1", "1-0")]
    assert list(data) == ["rsearch-index", *parts]
    index = data["rsearch-index"]
    assert [source["name"] for source in index["sources"]] == ["one", "evaluation"]
    assert index["title"] == "one and evaluation"
    assert not index["live"]
    assert data["rsearch-part-0-0"][0]["answer"] == "Rome"


def test_hostile_text_arrives_as_it_is_and_adds_no_element(make_run, tmp_path):
    def elements(text: str) -> list:
        row = rollout(question=text, answer=text, question_id=text)
        row["segments"][0]["text"] = text
        path = write_view([make_run([row], name=f"run{len(list(tmp_path.iterdir()))}")])
        assert data_of(path)["rsearch-part-0-0"][0]["segments"][0]["text"] == text
        return Elements(path.read_text(encoding="utf-8")).found

    plain = elements("plain")
    for text in HOSTILE:
        assert elements(text) == plain


def test_the_policy_allows_what_is_in_the_file_and_nothing_else(make_run):
    path = write_view([make_run([rollout()])])
    page = Elements(path.read_text(encoding="utf-8"))
    (policy,) = [a["content"] for t, a in page.found if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    runs = [text for text in page.texts if not re.fullmatch(r"[\w+/=]*", text)]
    for text in runs:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == len(runs) >= 2
    outside = [a for _, a in page.found if a.get("src") or "//" in (a.get("href") or "")]
    assert outside == []


def test_modules_are_joined_in_the_order_of_their_imports(tmp_path):
    (tmp_path / "viewer.html").write_text(
        '<html><head><link rel="stylesheet" href="/static/a.css">'
        '<script type="module" src="/static/main.js"></script></head><body>x</body></html>'
    )
    (tmp_path / "a.css").write_text("p {}")
    imports = 'import { b } from "./b.js";\nimport { c } from "./c.js";\n'
    (tmp_path / "main.js").write_text(f"{imports}b(c);\n")
    (tmp_path / "b.js").write_text('import {\n  c,\n} from "./c.js";\nexport function b() { c; }\n')
    (tmp_path / "c.js").write_text("export const c = 1;\nexport async function d() {}\n")
    page = assemble_page(tmp_path)
    assert "import" not in page.script and "export" not in page.script
    places = [page.script.index(word) for word in ("const c", "function b()", "b(c);")]
    assert places == sorted(places)
    assert page.start.count("<script") == 0
    assert page.end == "</body></html>"
    (tmp_path / "c.js").write_text('"</SCRIPT>"')
    with pytest.raises(ValueError, match="end tag"):
        assemble_page(tmp_path)


def test_only_a_file_of_this_command_is_replaced(make_run, tmp_path):
    run = make_run([rollout()])
    foreign = tmp_path / "notes.html"
    foreign.write_text("mine")
    with pytest.raises(RunFolderUnwritable, match="not written by rsearch view"):
        write_view([run], foreign)
    assert foreign.read_text() == "mine"
    first = write_view([run]).read_text(encoding="utf-8")
    assert MARK in first
    assert write_view([run]).read_text(encoding="utf-8") == first


def test_a_link_is_replaced_and_not_followed(make_run, tmp_path):
    run = make_run([rollout()])
    target = write_view([run], tmp_path / "target.html")
    before = target.read_bytes()
    (run / "view.html").symlink_to(target)
    write_view([make_run([rollout()] * 3, "other")], run / "view.html")
    assert target.read_bytes() == before
    assert not (run / "view.html").is_symlink()


def test_a_place_that_cannot_be_written(make_run, tmp_path):
    with pytest.raises(RunFolderUnwritable, match="--output"):
        write_view([make_run([rollout()])], tmp_path / "nowhere" / "view.html")
