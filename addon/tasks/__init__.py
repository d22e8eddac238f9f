"""Runs long work on a thread or step by step, with Cancel, Esc and the status line. May import the backend's errors and progress alone."""
