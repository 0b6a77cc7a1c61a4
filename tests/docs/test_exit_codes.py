"""docs/exit-codes.md lists the codes of the program, all of them and no others."""

from __future__ import annotations

import re

from pages import ROOT

from rsearch_cli import app, errors

PAGE = ROOT / "docs/exit-codes.md"
BESIDE_ERRORS = {0, 1, app.USAGE, app.PIPE_CLOSED}


def test_the_table_is_that_of_the_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = {kind.exit_code for kind in kinds if issubclass(kind, errors.RsearchError)}
    listed = re.findall(r"^\| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(map(int, listed)) == sorted(raised | BESIDE_ERRORS)
