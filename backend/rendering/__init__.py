"""Draws point clouds as pictures. May import geometry and rig."""
