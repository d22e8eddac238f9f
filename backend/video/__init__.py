"""Reads and writes videos. Imports OpenCV and numpy; no torch."""
