"""The one exception that a user may see."""


class UsageError(Exception):
    """Something the user can put right: says what is wrong, where, and what to do.

    ``main.py`` prints the message without a traceback and exits with code 2.
    """

    def __init__(self, message: str):
        # A data-loader worker re-raises with its own traceback in the text: the user gets the message alone.
        super().__init__(message.rpartition("UsageError: ")[2].strip())


class NotFiniteError(UsageError):
    """A network gives logits that are not finite."""
