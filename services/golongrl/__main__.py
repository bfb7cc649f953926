"""`golongrl`, also as `python -m golongrl`: what happens before its modules are loaded.

Loading them takes a second, minutes on a busy machine: Ctrl-C has to end it without the traceback of an import.
"""

import signal


def main() -> None:
    """Load the command line and run it."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from golongrl.cli import main as run

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
