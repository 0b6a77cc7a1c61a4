"""Folders on disk: file names, run and evaluation folders, atomic writes, and locks."""
