"""Rotations, kinematics and cameras. May import numpy and scipy, torch in torch_kinematics.py alone, and the errors."""
