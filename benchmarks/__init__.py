"""Timings against the software that rd_lightning replaces; each file runs with ``python -m``."""
