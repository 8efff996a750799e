"""Tasks: proteins with a target for each residue or one each, and how they are split."""
