"""What can go wrong with a server, by what to do about it."""

from __future__ import annotations


class LdapTrouble(Exception):
    """Whatever it is, the directory is unavailable to who asked. The text is for the log; it holds no secret."""


class ServerTrouble(LdapTrouble):
    """This server cannot serve now: another may."""


class ConnectionLost(ServerTrouble):
    """The connection broke without a wait: a kept one may simply have been closed by the server."""


class RequestTrouble(LdapTrouble):
    """The server works and says no (a base that does not exist, no right to read): another would say the same."""


class NoSuchEntry(RequestTrouble):
    """There is nothing of that name."""


class OutOfTime(LdapTrouble):
    """The request's time was over before the server had its share of it: that says nothing about the server."""


class NoServer(LdapTrouble):
    """All servers are down; nobody was asked."""
