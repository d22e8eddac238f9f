"""Rig, Reference and Target, the skeleton as the network sees it, joint names, point cloud. May import geometry, not torch."""
