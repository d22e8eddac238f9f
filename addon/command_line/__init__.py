"""Runs the add-on without a window, as `blender -b FILE --command anyrig ...`. May import every package but dev."""
