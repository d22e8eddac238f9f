"""The one exception that is meant for the user's eyes."""


class UserError(Exception):
    """Something the user can mend. The message is one sentence that names the bone, frame or file and the fix.

    fix: a name under which a panel may offer the fix as a button (addon/fixes.py), or ''.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix
