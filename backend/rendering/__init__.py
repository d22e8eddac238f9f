"""Draws point clouds as images. May import geometry and rig."""
