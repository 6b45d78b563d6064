"""`python -m seewhy` is `seewhy`."""

from seewhy.cli import main

main()
