"""`python -m autoinit` is the command `autoinit`."""

from .cli.main import main

main()
