"""Model files, their download and the released checkpoint. Imports model and encoders."""
