"""Question sets: questions, their reference answers, and the corpora that belong to them.

`sets` is the registry; `world`, `hotpotqa`, `flashrag` and `custom` are one set each.
"""
