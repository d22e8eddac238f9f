"""Training samples: windows of clips drawn as pictures, and their augmentation."""
