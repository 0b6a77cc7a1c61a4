"""What each command does, as functions that can be called from Python."""
