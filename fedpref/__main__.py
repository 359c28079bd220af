"""``python -m fedpref`` is the command ``fedpref``."""

from fedpref.cli import main

if __name__ == "__main__":
    main()
