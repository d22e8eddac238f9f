"""Motion, the file of a take, and BVH. May import rig, geometry and Clip; never torch."""
