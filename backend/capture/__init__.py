"""The generator that turns a video and rigs into motions. May import everything but train and baseline."""
