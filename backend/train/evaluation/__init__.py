"""Measures a model and compares it with copying the reference pose. metrics.py needs numpy alone."""
