"""Directories: where accounts and aliases come from, and what an address stands for.

``passwd_file.py``, ``alias_file.py`` and ``memory.py`` provide
:class:`~mailsrv.interfaces.directory.IDirectory`; ``chain.py`` asks several in order;
``resolve.py`` turns a recipient's address into accounts; ``passwords/`` checks and makes
password hashes. A directory that does not answer is :class:`~mailsrv.errors.Unavailable`, never
an unknown user (R-AUTH-7).
"""
