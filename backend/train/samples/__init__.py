"""Makes training samples: windows of clips drawn as images, and their augmentation."""
