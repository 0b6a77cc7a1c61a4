from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_eight_processes_share_a_cache_though_two_are_killed(repository: Path) -> None:
    script = repository / "benchmarks" / "cache_endurance.py"
    done = subprocess.run(
        [sys.executable, str(script), "--seconds", "2"],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["problems"] == []
    assert (result["processes"], result["killed"]) == (8, 2)
    assert result["calls"] >= 100
    assert result["fetches"] >= 1000
