"""Conversations with an agent: follow-up questions, and answers of a paragraph."""
