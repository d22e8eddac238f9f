"""Runs long work on a thread or step by step, with Cancel, Esc and the status line. Imports of the backend only errors and progress, of the add-on nothing."""
