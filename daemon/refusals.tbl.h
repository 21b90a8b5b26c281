// SPDX-License-Identifier: MIT
//
// Why somebody is refused something, once: the reason, the counter that it raises (shm/
// counters.tbl.h), and what is refused, as the log's line begins. No guard: it is expanded several
// times. Expand with X(name, counter, what).
X(RIGHT, refused_rights, "a command")
X(ATTACH_RIGHT, refused_attach_right, "the shared memory")
X(ATTACH, refused_attach, "the shared memory")
X(FLIGHT, refused_flight, "the shared memory")
X(PAGES, refused_pages, "a reader page")
X(MEMORY, writes_refused, "a write")
X(STORED, refused_stored, "a write")
X(CROWDED, writes_crowded, "a write")
X(RATE, writes_throttled, "a write beyond the quota, for a while,")
X(MAXCLIENTS, rejected_maxclients, "a connection")
X(UID_SHARE, rejected_uid_share, "a connection")
X(NO_DESCRIPTOR, rejected_descriptors, "a connection")
X(DESCRIPTORS, dropped_descriptors, "the connection, for sending descriptors,")
X(BUFFERS, dropped_buffers, "the connection")
X(OUTPUT, clients_dropped_output, "the connection")
X(PINS, dropped_pins, "the connection")
X(INTAKE, dropped_intakes, "the connection")
X(FRAME_TIMEOUT, dropped_frame_timeout, "the connection")
X(FRAME, dropped_frames, "the connection, for a malformed request,")
X(WEB, dropped_web, "the connection, for speaking HTTP,")
