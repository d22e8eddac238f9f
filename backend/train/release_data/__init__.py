"""Reads the data set of the public release."""
