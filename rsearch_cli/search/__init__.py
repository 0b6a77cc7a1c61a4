"""Searching: from a valid plan to passages.

Place in the path: between the plan that the policy wrote and the result block that it reads.
`sources` names who can be asked, `bm25` answers from a corpus (a large one stays on disk, as
`prepared` put it there), `cache` remembers answers, `expansion` hands on what a parent found,
`executor` carries a plan out. On failure: a source that cannot be set up raises; one that does not
answer marks its own node and nothing else.
"""
