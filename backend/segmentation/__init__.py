"""Finds where the subject is: a matte and a box per frame. May import video and hardware."""
