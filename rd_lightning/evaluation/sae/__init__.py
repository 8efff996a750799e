"""What do directions mean? TopK sparse autoencoders, and annotations that their features carry."""
