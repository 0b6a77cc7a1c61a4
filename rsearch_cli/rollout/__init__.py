"""Rollouts: from a question to a trajectory, with searches in between."""
