"""What is compared: maps of the pooled embeddings, all from one file of moments."""
