// SPDX-License-Identifier: MIT
//
// A kvd of one's own for system tests in C: started in a fresh temporary folder, stopped, killed
// and started again on the same data, and a plain blocking RESP connection to it. Problems of the
// harness itself end the test with `Bail out!` and the daemon's log: no test goes on without its
// server.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct harness;

/// Starts kvd with `--dir` on a fresh folder and `args` (NULL-terminated, may be NULL), and waits
/// until it accepts and answers PING. The program is $KVD_PROGRAM, else ../../daemon/kvd beside the
/// test's own binary; $KVD_WRAPPER (words split at spaces: "valgrind -q", "gdb --args") goes in
/// front of it. The kernel kills kvd when the thread that called this ends, so call it from the
/// main thread. Free with harness_free.
struct harness *harness_start(const char *const *args);

/// Makes the folder only. harness_launch starts kvd later, perhaps several times with other
/// arguments; harness_spawn does not wait for readiness (for starts that are meant to fail).
struct harness *harness_new(void);
void harness_launch(struct harness *h, const char *const *args);
void harness_spawn(struct harness *h, const char *const *args);

/// Waits until kvd answers PING; false if it exited instead (then harness_wait has its status).
bool harness_wait_ready(struct harness *h);

/// Environment variable for kvd's later starts (value NULL removes it).
void harness_setenv(struct harness *h, const char *name, const char *value);

/// SIGTERM and wait. Returns the exit code, or 128 + signal. Kills and bails out after the timeout
/// ($KVD_TEST_TIMEOUT_S, default 60).
int harness_stop(struct harness *h);

/// kill -9 and wait.
void harness_kill(struct harness *h);

/// Waits for kvd to end by itself; same result and timeout as harness_stop.
int harness_wait(struct harness *h);

/// Starts kvd again on the same folder with the arguments of the last start; it must not be
/// running.
void harness_restart(struct harness *h);

/// Kills kvd if it runs, removes the folder (kept, and named, if $KVD_TEST_KEEP is set), frees.
void harness_free(struct harness *h);

pid_t harness_pid(const struct harness *h);	   // 0 when not running
const char *harness_dir(const struct harness *h);  // kvd's data folder
const char *harness_root(const struct harness *h); // its parent, for the test's own files
const char *harness_socket(const struct harness *h);
const char *harness_log_path(const struct harness *h); // what kvd printed, all starts
/// True if `text` stands in what kvd printed so far.
bool harness_log_has(const struct harness *h, const char *text);

/// Bytes of one RESP reply, raw (`+OK\r\n`, `$3\r\nabc\r\n`, nested arrays whole), NUL-terminated.
struct harness_connection;

struct harness_connection *harness_connect(const struct harness *h);
void harness_disconnect(struct harness_connection *c);
int harness_fd(const struct harness_connection *c);

/// Sends raw bytes; false if the peer has gone.
bool harness_send(struct harness_connection *c, const void *bytes, size_t length);

/// Reads one whole reply of any RESP2 or RESP3 type. NULL on end of file or after the timeout.
/// Valid until the next call on this connection; `length` may be NULL.
const char *harness_reply(struct harness_connection *c, size_t *length);

/// Sends the arguments (NULL-terminated list of strings) as one command and reads its reply.
__attribute__((sentinel)) const char *harness_command(struct harness_connection *c, ...);

/// The same for binary arguments.
const char *harness_command_argv(struct harness_connection *c, size_t argc, const void *const *argv,
				 const size_t *argv_bytes, size_t *length);

/// Encodes and sends one command without reading (pipelining).
bool harness_append(struct harness_connection *c, size_t argc, const void *const *argv,
		    const size_t *argv_bytes);
