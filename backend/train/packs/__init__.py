"""Reads and writes rig packs and rendered clips, and splits both for training and testing."""
