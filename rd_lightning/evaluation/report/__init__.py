"""Metrics, differences with their intervals and tests, tables and pictures."""
