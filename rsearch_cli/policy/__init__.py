"""Policies: local weights, inference engines and servers that rollouts generate with."""
