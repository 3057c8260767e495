"""`python -m afterimage.storage`: the command line, where its script is not on the path."""

from afterimage.storage.cli import main

if __name__ == "__main__":  # not where something only looks for examples
    main()
