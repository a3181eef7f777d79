"""Drawing one tensor from its shape, a std and a generator; one file per distribution."""
