"""`clipstep` and `python -m clipstep`. Ctrl-C is heard from the first line on, while libraries are still being imported, too."""

import sys


def main() -> None:
    """Runs the command line."""
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
