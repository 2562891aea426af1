"""``python -m pnet`` is the command ``pnet``."""

from pnet.cli import main

if __name__ == "__main__":
    main()
