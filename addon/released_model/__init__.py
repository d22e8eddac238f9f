"""Downloads the released weights and edits the table of joint names. May import rig, settings, tasks and ui."""
