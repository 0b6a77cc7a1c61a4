"""Text generation: what continues a transcript, and how its weights are loaded."""
