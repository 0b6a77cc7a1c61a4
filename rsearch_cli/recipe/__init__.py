"""Recipes: all settings of a run, as YAML files and as typed sections."""
