"""Shows takes: their list, video overlay, skeleton lines, side-by-side movie. May import capture and ui."""
