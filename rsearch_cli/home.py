"""A home folder for processes without one, such as a container that runs under a bare user id."""

from __future__ import annotations

import atexit
import getpass
import logging
import os
import shutil
import tempfile

logger = logging.getLogger(__name__)


def provide_home() -> None:
    """Give this process a home folder and a user name if the system has none.

    Libraries put caches into the home folder, and some need a user name. The folder is removed when
    the process exits.
    """
    if os.path.expanduser("~") == "~":
        folder = tempfile.mkdtemp(prefix="rsearch-home-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["HOME"] = folder
        if not os.environ.get("RSEARCH_CACHE_DIR"):
            logger.warning(
                "there is no home folder (HOME is not set), so nothing is cached between runs; set "
                "RSEARCH_CACHE_DIR to keep indexes and paid answers"
            )
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # ImportError on Windows
        os.environ["USER"] = "user"
