"""One TOML file becomes one frozen, typed :class:`~mailsrv.config.schema.Settings`.

``schema`` lists the sections (the records themselves stand beside the code that uses them),
``structure`` turns tables into records and collects every mistake, ``rules`` looks for impossible
combinations, ``load`` puts them together, ``sample`` and ``reference`` write the sample file and
the manual page from the same records.
"""
