"""Fixed protocols on real data; each script prints a table. See README.md in this folder."""
