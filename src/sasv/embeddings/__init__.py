"""Embeddings: a loaded model, and extraction over whole tables."""
