"""The repository of messages: Maildir++, one file a message, never changed in place."""
