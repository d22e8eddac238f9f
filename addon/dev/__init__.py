"""Tools of the repository: rig packs, rendered clips, demo, keying benchmark. Not in the zip; nothing shipped imports it."""
