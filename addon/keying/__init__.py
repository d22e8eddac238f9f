"""Turns a Motion into an action; saves and restores an armature's animation. May import addon/rig and addon/rendering."""
