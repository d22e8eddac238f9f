"""Model files, their download and the released checkpoint. May import model and encoders."""
