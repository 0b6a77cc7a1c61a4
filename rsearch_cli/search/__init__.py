"""Search: sources, their caching, and the executor that runs search plans on them.

`sources` defines what a source is and lists the built-in kinds, `executor` runs plans, `expansion`
decides what a node takes over from its parents, and `page_reader` reads the pages behind hits.
"""
