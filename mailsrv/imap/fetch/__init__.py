"""How FETCH is answered: what was asked for, ready-made rows, and sections of messages."""
