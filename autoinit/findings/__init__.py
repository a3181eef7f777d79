"""What stands out in a model as it is, in plain language, each with what would mend it."""
