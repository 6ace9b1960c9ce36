"""Handing mail on: next hops, connections, attempts."""
