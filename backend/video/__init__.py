"""Reads and writes videos; FrameSource reads one. May import OpenCV, numpy and, of the backend, only arrays and errors."""
