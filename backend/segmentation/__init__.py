"""Finds the subject: a matte and a box per frame. May import video and hardware."""
