"""Filters: finding them, asking them in order, and making one from a single function.

The interface is :class:`mailsrv.interfaces.filter.IFilter`; what a filter may answer stands
there. A filter never sees a transport, and nothing of what it asks for is done before all of its
answer has been checked (R-FILT-1).
"""
