"""Question sets: what is asked, the reference answers, and the corpus that comes along.

Place in the path: the top; a `Question` from here enters the rollout, a corpus goes into the search
index. `sets` knows all sets by name; `world`, `hotpotqa`, `custom` and `flashrag` are one each.
`rows` reads their files, `parquet` and `contexts` beneath it. `building` makes a new file of a set:
`records` to keep, by `cleaning` without repeats, written by `files`. On failure: a `DataError` that
names file and line; nothing is skipped silently.
"""
