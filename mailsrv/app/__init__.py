"""The running server: the object graph, its start and its stop, its workers.

``build`` is the one place that knows every part. ``listening`` binds, ``service`` is the server in
one process, ``supervisor`` and ``worker`` are it in several, ``reload`` takes a changed file in.
"""
