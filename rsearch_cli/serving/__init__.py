"""Serving an agent: requests of several people, answered by one policy."""
