"""Evaluation: answers to a list of questions, their scores, summaries and comparisons."""
