"""Recipes: what a run is, as YAML on disk and as typed sections in memory."""
