"""Captures the motion of a video for rigs: the generator that everything calls. May import everything but train and baseline."""
