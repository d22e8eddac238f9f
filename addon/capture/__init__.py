"""The Capture button: its panel, the estimate, the run, and the store of takes."""
