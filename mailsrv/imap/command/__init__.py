"""The commands, one file each: the typed command, how it is read, and how it is carried out."""
