"""Times every step from a video file to a motion."""
