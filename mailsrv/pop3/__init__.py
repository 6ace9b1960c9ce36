"""POP3 (RFC 1939) with CAPA (RFC 2449), STLS (RFC 2595), response codes (RFC 3206) and AUTH (RFC 5034).

The engine (:mod:`.session`) does no I/O; :mod:`.protocol` moves its octets. The maildrop is the
account's INBOX as it was at log-in: what arrives later is seen in the next session.
"""
