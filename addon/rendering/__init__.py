"""Draws a rig in a scene of its own. Imports addon/rig; torch only inside functions."""
