"""Tools of the repository: rig packs, rendered clips, the demo, the keying benchmark. Not in the zip; no shipped module imports it."""
