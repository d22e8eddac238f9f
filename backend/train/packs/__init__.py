"""Rig packs, rendered clips and the splits of both."""
