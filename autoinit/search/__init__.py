"""One search: from the first trial to the answer."""
