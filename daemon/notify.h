// SPDX-License-Identifier: MIT
//
// What systemd wants to hear from a Type=notify service, spoken by hand: one datagram to
// $NOTIFY_SOCKET. Without that variable every function does nothing.
#pragma once

#include <stddef.h>

struct seam;

/// Where kvd --supervise tells its child the number of the one socket that can send to it.
#define NOTIFY_FD "KVD_NOTIFY_FD"

void notify_ready(void);    // READY=1: clients can connect
void notify_stopping(void); // STOPPING=1
void notify_status(const char *format, ...) __attribute__((format(printf, 1, 2))); // STATUS=…

/// A socket for notify_watchdog(), kept so that pings go on when no descriptor is left. It is the
/// caller's; -1 if there is no $NOTIFY_SOCKET, or with a warning.
int notify_open(void);
void notify_watchdog(int sender); // WATCHDOG=1, if it can be sent at once

/// Sends `bytes` of `text`, NAME=value lines, and with them a copy of `fd` unless that is -1. Waits
/// two seconds at most while the manager does not read. 0, 1 if there is no $NOTIFY_SOCKET, or a
/// negative errno value; nothing is logged. Any thread, while nobody changes the environment.
int notify_send(const struct seam *seam, const char *text, size_t bytes, int fd);
