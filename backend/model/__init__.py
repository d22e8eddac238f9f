"""The network, in reading order: config, inputs, layers, geometric_layers, network. May import encoders, geometry, rig."""
