"""Trains the network that cuts subjects out of open scenery."""
