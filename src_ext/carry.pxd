# What the telemetry kernel lends to the batch kernel: the trace context of the caller, for an event that leaves.

from libc.stdint cimport uint8_t

cdef enum:
    TRACEPARENT_SIZE = 55
    NOTHING = 0     # there is no context
    WHOLE = 1       # the header is all there is
    MORE = 2        # there are tracestate or baggage too: the caller takes the long way

# Writes the header `traceparent` into TRACEPARENT_SIZE bytes, unless it answers NOTHING or MORE.
ctypedef int (*Carry)(uint8_t* out) except -1
