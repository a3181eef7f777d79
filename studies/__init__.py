"""Studies that ship with the project: study files, and the networks and data that they name."""
