"""What a device makes of the library, in one command of eight minutes: `python -m benchmarks.gpu`."""
