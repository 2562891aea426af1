"""The errors that a user can meet. Each message names what was wrong and what is allowed."""


class PNetError(Exception):
    """Base of every error that PNet raises on purpose; the command line prints it without a traceback."""


class ConfigError(PNetError, ValueError):
    """A parameter, recipe or profile holds something that is not allowed."""


class DataError(PNetError, ValueError):
    """A file or an array is damaged, truncated or of the wrong kind."""


class MissingError(PNetError, FileNotFoundError):
    """Something PNet needs is not on this machine; the message ends with the command that gets it."""
