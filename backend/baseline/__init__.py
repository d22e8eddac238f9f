"""The method before this one (V1), to compare with."""
