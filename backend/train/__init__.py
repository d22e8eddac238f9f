"""Trains and measures models: rig packs, samples, the loop, evaluation, benchmark. Left out of the zip."""
