"""Captures many videos: jobs file, queue in the panel, Flamenco job type. May import capture and import_export."""
