"""Rotations, kinematics and cameras. Imports numpy, scipy and, for the twins on tensors, torch; nothing else of the backend."""
