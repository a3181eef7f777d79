"""One self-contained HTML page about a study, a selection or a diagnosis."""
