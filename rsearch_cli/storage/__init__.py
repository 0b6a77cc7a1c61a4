"""Folders that a run or an evaluation keeps on disk: who may write there, and that all is whole."""
