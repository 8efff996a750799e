"""Sequences: read, checked, stored, cut into windows, put into batches, divided among processes."""
