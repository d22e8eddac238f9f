"""The network, its config and its inputs, in reading order: config, inputs, layers, geometric_layers, network."""
