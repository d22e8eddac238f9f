"""`blender -b FILE --command anyrig ...`: the add-on without a window. Imports every other package inside functions."""
