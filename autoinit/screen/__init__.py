"""What a person sees: tables that fit the terminal, small pages and charts for notebooks, bars of progress."""
