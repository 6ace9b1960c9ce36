"""Where accounts' mail is kept.

:mod:`~mailsrv.store.memory` keeps it in memory (tests, demonstrations); the Maildir store keeps
octets in Maildir++ (:mod:`~mailsrv.store.maildir`) and everything else in one SQLite database an
account (:mod:`~mailsrv.store.index`). The index is truth for UIDs, flags, keywords and
mod-sequences, the repository for octets.
"""
