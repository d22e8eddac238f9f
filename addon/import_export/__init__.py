"""Imports a rig from a file and exports a take to files. May import addon/rig and backend/motion."""
