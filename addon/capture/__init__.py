"""The Capture button: panel, estimate, run, store of takes. May import keying, rendering, settings, tasks and ui."""
