"""`python -m afterimage.storage`: the command line, where its script is not on the path."""

from afterimage.storage.cli import main

main()
