"""Training and measuring: rig packs, the loop, evaluate. Left out of the zip."""
