"""The protocol: what the model is told, what it writes, and how that is read.

Place in the path: `prompt` opens a rollout, `transcript` finds the tags in what the model wrote,
`plan` (line by line: `grammar`) reads a search plan out of them, `results` renders what the system
inserts. `characters` is what they have in common. On failure: nothing here raises for text that a
model or a source wrote; problems are values.
"""
