"""Reads and writes videos; frame_source.py is the way to read one. May import OpenCV and numpy, and of the backend only arrays and errors."""
