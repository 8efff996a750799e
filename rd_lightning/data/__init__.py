"""Sequences: read, checked, stored, cut into windows, put into batches, dealt to processes."""
