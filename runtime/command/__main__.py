"""``clipstep`` and ``python -m clipstep``. Ctrl-C is heard from the first line on, while libraries are still being imported, too."""

import sys


def main() -> None:
    """Runs the command line."""
    try:
        from clipstep.runtime.cli import main as run
        from clipstep.runtime.openmp import wait_asleep

        wait_asleep()
        run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
