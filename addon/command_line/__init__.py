"""`blender -b FILE --command anyrig ...`, the add-on without a window. May import every package but dev."""
