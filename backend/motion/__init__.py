"""Motion, the file of a take, and BVH. Imports rig and geometry; no torch."""
