"""Trains the network: the loop, its losses, figures on held-out clips, several processes."""
