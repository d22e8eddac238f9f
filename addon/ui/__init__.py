"""What panels share: wrapped labels, the buttons below an error, menus. May import settings and tasks."""
