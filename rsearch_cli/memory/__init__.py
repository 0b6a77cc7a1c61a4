"""GPU memory of a run, predicted before anything is loaded."""
