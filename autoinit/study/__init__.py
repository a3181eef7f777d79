"""Studies: many tasks and many trials, written down in a file, run overnight and resumed."""
