"""A nonlinear mapping in place of the linear one: random features in the moments."""
