"""What studies have found: the shipped records, condensed, and those of a person's own."""
