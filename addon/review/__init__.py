"""Shows takes: the list, the video overlay, skeleton lines and the side-by-side movie."""
