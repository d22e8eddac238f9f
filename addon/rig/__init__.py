"""Reads an armature: bones, control rigs, locks, actions, its surface. May import the backend's values alone."""
