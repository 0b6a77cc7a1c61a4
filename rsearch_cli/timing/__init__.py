"""How long a run takes, predicted before it starts: by card, or from a run that was measured."""
