// SPDX-License-Identifier: MIT
//
// What systemd wants to hear from a Type=notify service, spoken by hand: one datagram to
// $NOTIFY_SOCKET. Without that variable every function does nothing.
#pragma once

void notify_ready(void);    // READY=1: clients can connect
void notify_stopping(void); // STOPPING=1
void notify_status(const char *format, ...) __attribute__((format(printf, 1, 2))); // STATUS=…
