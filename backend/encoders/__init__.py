"""Image and name encoders, and the crops they are given. May import geometry and hardware."""
