"""Scene properties, preference values, presets, and the plain values that a capture starts from."""
