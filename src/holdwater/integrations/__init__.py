"""Other people's frameworks, joined to the guard."""
