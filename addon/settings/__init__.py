"""Scene properties, preference values, presets, and what a capture starts from. May import rig, keying, rendering."""
