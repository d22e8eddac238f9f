"""The preferences panel, Check Device and Copy Diagnostics. May import settings, tasks and ui."""
