"""What happens to a message between MAIL and the journal: recipients, filters, trace fields, quota, one record.

:class:`~mailsrv.delivery.receiver.MessageReceiver` is what SMTP and LMTP sessions talk to. The
journal's commit is the point at which mail is acknowledged; before it everything can still be
refused, after it nothing.
"""
