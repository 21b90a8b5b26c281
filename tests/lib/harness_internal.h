// SPDX-License-Identifier: MIT
//
// What the two halves of the harness (process, connection) share.
#pragma once

#include <stdbool.h>
#include <stdint.h>

uint64_t harness_now_ms(void);
uint64_t harness_timeout_ms(void);

/// Prints the log (may be NULL) as diagnostics and `Bail out!` with the message, and exits.
__attribute__((format(printf, 2, 3), noreturn)) void harness_bail(const char *log_path,
								  const char *format, ...);

/// One connection, one PING: true if +PONG came.
bool harness_ping(const char *socket_path);
