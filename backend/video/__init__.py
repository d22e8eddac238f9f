"""Reads and writes videos. May import OpenCV and numpy, and of the backend only errors."""
