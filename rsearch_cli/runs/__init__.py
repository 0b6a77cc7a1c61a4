"""Everything about folders on disk: file names, run folders, atomic writes and locks."""
