"""Fits a take to its video, and says how much of the subject it covers. May import rig, motion, geometry, rendering and video."""
