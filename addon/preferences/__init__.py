"""The preferences panel, Check Device and Copy Diagnostics."""
