"""The command `autoinit`."""
