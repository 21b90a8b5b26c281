# SPDX-License-Identifier: MIT
#
# Mistakes about large values: whose bytes they are, and who has them.
from mutant import Mutant

LARGE = [
    Mutant('intake-unheld', 'a write that takes a received value does not hold its run',
           'daemon/keyspace_intake.c',
           [('kvs_large_hold(&keyspace->large, op->run_offset);', '')],
           ['tests/daemon/test_keyspace_intake'], quick=True),
    Mutant('intake-any-bytes', 'a write of a part of what was received takes all of it',
           'daemon/keyspace_intake.c',
           [('op->value != keyspace_intake_value(keyspace, intake) || '
             'op->value_bytes != intake->bytes', 'op->value == NULL')],
           ['tests/daemon/test_keyspace_intake'], quick=True),
    Mutant('intake-parsed-anew', 'a request that waits is parsed anew without its value',
           'daemon/session_run.c',
           [('request->argc > SESSION_ARGS_KEPT_MAX || session->intake.run_offset != 0',
             'request->argc > SESSION_ARGS_KEPT_MAX')],
           ['tests/daemon/test_session_intake'], quick=True),
    Mutant('intake-moves', 'an argument that is elsewhere moves with the input', 'shm/resp.c',
           [('if (offset < state->offset) {', 'if (true) {')],
           ['tests/daemon/test_session_intake'], quick=True),
    Mutant('intake-kept', 'who dies in the middle of a value keeps its run', 'daemon/session.c',
           [('session_intake_end(session);', '')],
           ['tests/daemon/test_session_intake'], quick=True),
    Mutant('intake-uncounted', 'values that are announced have no bound',
           'daemon/session_intake.c',
           [('shared->intake_bytes += bytes;', '')],
           ['tests/daemon/test_session_intake'], quick=True),
    Mutant('intake-trickles', 'a byte now and then is enough to keep wanted memory',
           'daemon/session_intake.c',
           [('now_ns > INTAKE_GRACE_NS ? now_ns - INTAKE_GRACE_NS : 0;', 'now_ns;')],
           ['tests/daemon/test_session_intake'], quick=True),
]
