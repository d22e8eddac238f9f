"""Downloads the released weights and edits the table of joint names."""
