"""The training loop: losses, validation, resuming, several processes."""
