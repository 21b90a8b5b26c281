// SPDX-License-Identifier: MIT
//
// Results of libkvclient: name, number, sentence. kvclient.h repeats names and numbers because it
// is the one installed header; a test holds the two together. Expand with X(name, number,
// sentence).
X(OK, 0, "success")
X(NOT_FOUND, 1, "no such key")
X(NOT_APPLIED, 2, "the condition did not hold, nothing was changed")
X(TRUNCATED, 3, "the buffer is too small for the value")
X(CHANGED, 4, "it may have changed since: read it again")
X(REVOKED, -1, "kvd took the memory back from a view held too long: discard what was read")
X(BUSY, -2, "views are open, writers never paused for a snapshot, or the queue is full")
X(UNREACHABLE, -3, "kvd cannot be reached, or refuses: it has not got the request")
X(TIMEOUT, -4, "the deadline passed; if it was a write, it may have been applied")
X(UNKNOWN, -5, "the connection broke after a write was sent: it may have been applied")
X(NO_MEMORY, -6, "out of memory, in kvd (see kvctl stats) or in this process")
X(TOO_LARGE, -7, "key, value or batch over its limit")
X(INVALID, -8, "an argument is not valid")
X(REFUSED, -9, "kvd answered with an error: see kvc_error_text()")
X(PROTOCOL, -10, "the peer does not speak as kvd does")
X(LAYOUT, -11, "kvd's region has another layout than this library: update the older of the two")
X(DAMAGED, -12, "the shared region contradicts itself")
X(NOT_DURABLE, -13, "applied and visible, but kvd could not write its store")
X(SYSTEM, -14, "a system call failed")
X(NOT_NUMBER, -15, "the value is not an integer, or the result would overflow")
X(CANCELLED, -16, "cancelled; if it was a write and was sent, it may have been applied")
