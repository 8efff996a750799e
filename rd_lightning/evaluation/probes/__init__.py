"""What is trained on embeddings of variants: ridge, a network, neighbours."""
