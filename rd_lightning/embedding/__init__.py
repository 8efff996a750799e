"""Embedding with a fitted head: which sequences, in which batches, pooled how, kept where."""
