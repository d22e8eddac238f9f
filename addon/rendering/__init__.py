"""Draws a rig in a scene of its own. May import addon/rig; the backend's drawing only inside functions."""
