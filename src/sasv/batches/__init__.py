"""Training batches: which utterances form a batch, which crop of each is read, and how it is
augmented.
"""
