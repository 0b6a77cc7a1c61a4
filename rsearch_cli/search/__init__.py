"""Search: sources, their caching, and the executor that runs search plans on them.

`sources` defines what a source is, `bm25` and `exa` are the built-in kinds, `executor` runs plans,
and `expansion` decides what a node takes over from its parents.
"""
