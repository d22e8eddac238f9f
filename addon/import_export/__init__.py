"""Imports a rig from a file and exports a take to one."""
