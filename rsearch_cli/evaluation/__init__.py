"""Measuring: rollouts over a split, metrics with intervals, and how they are shown."""
