"""The resolver: MX, addresses, TXT, TLSA, with a bounded cache."""
