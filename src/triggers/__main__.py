"""``python -m triggers`` is the command line."""

from triggers.cli import main

if __name__ == "__main__":
    main()
