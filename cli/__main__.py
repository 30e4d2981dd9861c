"""`python -m cli` is `broker`."""

from cli.main import main

main()
