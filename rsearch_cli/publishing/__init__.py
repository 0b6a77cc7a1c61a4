"""Publishing: turn a finished run into a Hub repository that others can load and check."""
