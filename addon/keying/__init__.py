"""Turns a Motion into an action, and saves and restores the armature's animation. Imports addon/rig and the backend's values."""
