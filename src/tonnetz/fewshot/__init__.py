"""Few-shot recognition: episodes, how they judge embeddings, and what tests and comparisons of runs show."""
