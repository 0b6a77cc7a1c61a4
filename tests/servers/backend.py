"""The back end that this run of the tests trains and generates with: `pytest --backend NAME`."""

from __future__ import annotations

import os

BACKEND = os.environ.get("RSEARCH_TEST_BACKEND", "transformers")
