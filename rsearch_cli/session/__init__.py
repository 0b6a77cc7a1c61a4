"""A person asks: one question or many, in a terminal, with an answer that can be followed."""
