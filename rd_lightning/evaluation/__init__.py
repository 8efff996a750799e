"""Does an embedding help? Assays, folds, probes, metrics and statistics; no language model."""
