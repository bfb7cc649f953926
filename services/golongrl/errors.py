"""The base of every error that a person can act on: its message is one line that names the thing and what to do."""


class GolongrlError(Exception):
    """The command line prints it as `error: MESSAGE` and exits with `exit_code`."""

    # 1: failed. 2: bad usage or input, which another try would meet again.
    exit_code = 1


class InputError(GolongrlError):
    """Something the user gave is wrong: a recipe key, a file, a port, an option."""

    exit_code = 2
