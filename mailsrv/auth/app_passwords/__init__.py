"""App passwords: secrets of our own making, beside the directory's password, each for one program of a user.

``form`` makes and recognises them, ``record`` is what is kept, ``database`` keeps it in a file that all workers and
the commands share, ``judge`` asks that file from the reactor thread.
"""
