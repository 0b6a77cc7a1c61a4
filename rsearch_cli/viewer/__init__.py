"""The viewer: runs and evaluations as data for one page, in one file or served while they grow."""
