"""`python -m afterimage.storage`: the command line, also if its script is not on the PATH."""

from afterimage.storage.cli import main

if __name__ == "__main__":  # doctest collection imports this module too
    main()
