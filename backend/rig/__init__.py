"""Rig, Reference and Target, the skeleton as the network sees it, joint names and the point cloud. Imports geometry; no torch."""
