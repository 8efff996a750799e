"""The frozen head, and how it is kept, published and read from other software's files."""
