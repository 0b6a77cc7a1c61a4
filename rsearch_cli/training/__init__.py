"""Training: a cold start on traces, GRPO around our rollouts, the run folder, the live view."""
