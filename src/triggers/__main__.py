"""Runs the command line for ``python -m triggers``."""

from triggers.cli import main

if __name__ == "__main__":
    main()
