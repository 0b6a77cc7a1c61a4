"""A home folder for processes that have none, as in a container that runs under a bare user id."""

from __future__ import annotations

import atexit
import getpass
import logging
import os
import shutil
import tempfile

logger = logging.getLogger(__name__)


def provide_home() -> None:
    """Give this process a home folder and a user name where the system knows none.

    Libraries keep their caches in the home folder, and some do not start without a user. The folder
    is removed when the process ends.
    """
    if os.path.expanduser("~") == "~":
        folder = tempfile.mkdtemp(prefix="rsearch-home-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["HOME"] = folder
        if not os.environ.get("RSEARCH_CACHE_DIR"):
            logger.warning(
                "there is no home folder (HOME is not set), so nothing is kept between runs; set "
                "RSEARCH_CACHE_DIR to keep indexes and paid answers"
            )
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # the last one on Windows
        os.environ["USER"] = "user"
