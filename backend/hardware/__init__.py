"""Devices, memory, and workarounds for Apple's graphics processors. Imports torch inside functions where it may be missing."""
