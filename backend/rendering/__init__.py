"""Draws point clouds as pictures. Imports geometry and rig."""
