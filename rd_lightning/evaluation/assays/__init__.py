"""Assays: variants with measured scores, and which of them are held out together."""
