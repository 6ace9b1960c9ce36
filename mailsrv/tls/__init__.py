"""TLS for listeners: certificates, contexts that can be reloaded, and a self-signed certificate to begin with."""
