"""TLS of listeners (certificates, contexts) and towards other hosts (policies, DANE, MTA-STS, verdicts, reports)."""
