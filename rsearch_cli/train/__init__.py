"""Training: GRPO around our rollouts, the run folder, and what a person sees meanwhile."""
