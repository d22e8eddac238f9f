"""Encodes images and joint names, and cuts the crops for it. May import arrays and hardware."""
