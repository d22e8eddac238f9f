"""The generator that turns a video and rigs into motions. Imports every other package but train and baseline."""
