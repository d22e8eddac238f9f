"""The one exception that is meant for the user's eyes."""


class UserError(Exception):
    """Something the user can mend. The message is one sentence that names the bone, frame or file and the fix."""
