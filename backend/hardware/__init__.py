"""Devices, memory, and workarounds for Apple's graphics processors. May import of the backend only errors."""
