"""Procedural creatures for training: body plans, motions, skins and names from a seed. May import train/packs, rig and geometry."""
