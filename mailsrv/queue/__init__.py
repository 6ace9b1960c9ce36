"""The durable queue: what is owed to other hosts, when it is tried, and how it ends."""
