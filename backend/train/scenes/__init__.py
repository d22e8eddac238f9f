"""Scenes: pictures of a rig that are drawn and encoded once, kept in files, and shown in ever new pairs while training."""
