"""Directories over LDAP (RFC 4511): OpenLDAP, Active Directory, FreeIPA, Samba.

From below: ``filters.py`` (the only way a value gets into a filter or a DN), ``connection.py`` (one
connection, every wait with a deadline), ``servers.py`` (which servers are up), ``workers.py``
(threads with a connection each), ``client.py`` (an operation, carried over to the next server
within one request), ``mapping.py`` and ``presets/`` (which attribute means what), ``entry.py`` (an
entry as a user, a list or an alias), ``standing.py`` (whether a user may log in), ``groups.py`` (members of groups),
``memberships.py`` (groups of users), ``rights.py`` (who may send to whom and as whom), ``answers.py`` (the cache) and
``directory.py``, which is the :class:`~mailsrv.interfaces.directory.IDirectory`.
"""
