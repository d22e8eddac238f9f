"""Image and name encoders, and the crops they are given. Imports torch, geometry and hardware."""
