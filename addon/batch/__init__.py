"""Captures many videos: the jobs file, the queue in the panel, and the Flamenco job type."""
