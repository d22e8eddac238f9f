"""Measures a model next to copying the reference pose. metrics.py is numpy alone."""
