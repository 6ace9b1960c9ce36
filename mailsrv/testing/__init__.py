"""Public test doubles: what mailsrv's own tests use, and what people who extend it may use too."""
