"""What scores and differences are worth."""
