"""The rows of `metrics.jsonl` and `validation.jsonl` as curves."""

from __future__ import annotations

from typing import Any

from rsearch_cli.runs.json_text import finite_only
from rsearch_cli.runs.jsonl import Row
from rsearch_cli.terminal import finite
from rsearch_cli.viewer.fields import whole
from rsearch_cli.viewer.schema import Curves


class CurveData:
    """Rows with a step, in the order read."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, row: Row) -> bool:
        """Add a row; return False if it has no step."""
        if (step := whole(row.get("step"))) is None:
            return False
        self.rows.append({**finite_only(row), "step": step})
        return True

    def as_curves(self) -> Curves:
        """Return the figures by name; null where a row lacks one."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        series = {name: [finite(row, name) for row in self.rows] for name in names}
        return {
            "step": [row["step"] for row in self.rows],
            "series": {
                name: values
                for name, values in series.items()
                if name != "step" and any(value is not None for value in values)
            },
            "alarms": [
                {"step": row["step"], "alarms": [str(name) for name in row["alarms"]]}
                for row in self.rows
                if isinstance(row.get("alarms"), list) and row["alarms"]
            ],
        }
