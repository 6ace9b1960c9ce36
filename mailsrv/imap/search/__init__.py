"""How SEARCH is answered: keys, how they are read, and how they are applied."""
