"""What a trajectory earns: the answer, the validity of its plans, its format, and their sum."""
