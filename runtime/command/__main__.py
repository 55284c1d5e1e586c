"""The entry point of `clipstep` and `python -m clipstep`, which handles Ctrl-C even while libraries are being imported."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from clipstep.runtime.command_line.cli import main as run
        from clipstep.runtime.openmp import use_passive_waiting

        use_passive_waiting()
        run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
