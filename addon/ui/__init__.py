"""What panels share: wrapped labels, the buttons below an error, menus, the base class of operators. May import settings and tasks."""
