"""Question sets: what is asked, the reference answers, and the corpus that comes along.

Place in the path: the top; a `Question` from here enters the rollout, a corpus goes into the search
index. `sets` knows all sets by name, `rows` reads their files; each other module is one set. On
failure: a `DataError` that names file and line; nothing is skipped silently.
"""
