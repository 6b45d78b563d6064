"""`python -m seewhy` is `seewhy`."""

from seewhy.cli.main import main

main()
