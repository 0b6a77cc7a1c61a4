"""Everything outside: the one way by which searches and verdicts are bought.

Place in the path: below `search` and `reward`, which say what to ask; here is decided whether, when
and how often it is asked. `client` is what they call; behind it `cache` remembers answers,
`flight` keeps two from asking the same, `budget` holds the money, `flow` paces, retries and pauses.
`http` bounds what is received, `values` says what of it is taken, `keys` checks and hides keys.
`open` builds it all from a recipe. On failure: each module says its own; no failure is ever stored.
"""
