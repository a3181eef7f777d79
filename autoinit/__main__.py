"""`python -m autoinit` is the command `autoinit`."""

from .cli import main

main()
