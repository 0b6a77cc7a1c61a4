"""The protocol: prompts, the tags and plans that the model writes, and the results it is given.

Text of models and sources never raises here: problems are values.
"""
