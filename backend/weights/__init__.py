"""Loads models, downloads the released weights and converts their checkpoint. May import model and encoders."""
