"""Password hashes: checking every kind that is common in passwd-files, making Argon2id.

``verifiers.py`` tells whether a password fits a stored hash; ``hashing.py`` does that in a bounded
pool of threads and makes new hashes. Nothing here logs or shows a password or a hash.
"""
