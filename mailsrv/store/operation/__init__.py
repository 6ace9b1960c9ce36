"""What sessions do to an account, each inside a write transaction: flags, expunge, copy, the list of mailboxes."""
