"""Baselines to compare with: the inverse kinematics of V1, and the network written plainly. Left out of the zip."""
