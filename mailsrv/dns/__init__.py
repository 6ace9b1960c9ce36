"""The resolver: MX, addresses, TXT, TLSA and more, with a bounded cache and a proof that DNSSEC is validated."""
