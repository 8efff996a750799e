"""What the commands share: Hydra, overrides, the trainer."""
