"""Video in, motion of a rig out. numpy and torch only: nothing in this package may import bpy."""
