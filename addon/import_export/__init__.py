"""Imports a rig from a file and exports a take to one. May import addon/rig and backend/motion."""
