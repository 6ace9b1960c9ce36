"""One SQLite database an account, beside its mail (DESIGN decision 7)."""
