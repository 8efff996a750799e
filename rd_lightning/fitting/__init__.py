"""From sequences to moments to a head."""
