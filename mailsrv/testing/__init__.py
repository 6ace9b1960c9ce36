"""Test doubles and kits, usable by those who write filters and providers too."""
