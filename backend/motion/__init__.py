"""Holds motions and takes, and reads and writes their files and BVH. May import rig, geometry and Clip; never torch."""
