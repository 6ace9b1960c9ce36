"""Log-in: one portal for all protocols (``twisted.cred``).

``checker.py`` decides, asking the directory; ``login_cache.py`` remembers log-ins verified a
moment ago; ``throttle.py`` slows guessing down; ``realm.py`` gives the avatar. The answer comes
as a Deferred that fires after whatever delay a failure deserves.
"""
