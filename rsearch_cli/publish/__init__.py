"""Publishing: a finished run becomes a repository on the Hub that others can trust and load."""
