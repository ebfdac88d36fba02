"""Batches: which utterances go together, which part of each is read, and what is done to it."""
