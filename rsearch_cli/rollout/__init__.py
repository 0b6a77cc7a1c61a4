"""Rollouts: from a question to a trajectory, with the searches in between."""
