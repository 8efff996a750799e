"""The mathematics: moments, regressions, and the chain solved from them."""
