// SPDX-License-Identifier: MIT
//
// The supervisor's end of the protocol that fdstore.h speaks: a datagram socket at which the child
// says how it is doing and hands over descriptors, the descriptors themselves by name, and how the
// next child gets them. What concerns a service manager further out is passed on to it. Contents
// are never looked at.
//
// One thread calls all of this.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// Descriptors that are kept at most; more are refused, with a line in the log.
#define KEEPER_DESCRIPTORS_MAX 64u

struct seam;
struct fdstore;
struct keeper;

/// Opens the socket, under a name that the kernel chooses. What `inherited` (may be NULL) still has
/// is kept for the child too: sockets of socket units, and what an outer keeper held when this
/// supervisor's own predecessor died. 0 or a negative errno value.
int keeper_create(struct keeper **out, const struct seam *seam, struct fdstore *inherited);
void keeper_destroy(struct keeper *keeper);

/// To be polled for input; the keeper's own.
int keeper_fd(const struct keeper *keeper);
size_t keeper_count(const struct keeper *keeper);

/// Messages of others than the child, which were ignored: all of them, unlike the lines in the log.
uint64_t keeper_strangers(const struct keeper *keeper);

/// From now on only process `child` is listened to; 0: nobody is.
void keeper_listen_to(struct keeper *keeper, pid_t child);

enum keeper_heard { KEEPER_HEARD_READY = 1, KEEPER_HEARD_STOPPING = 2 };

/// Reads everything that has come, does what it asks for, passes on what is for others. Bits of
/// enum keeper_heard. To be called before the child is waited for: what it said last is there by
/// then, and afterwards its number means somebody else.
unsigned keeper_hear(struct keeper *keeper);

/// Between fork and exec, in the child: copies of all descriptors from 3 on and, behind them, of
/// the one socket that can send to the keeper's (NOTIFY_FD), and the variables that announce them.
/// 0 or a negative errno value.
int keeper_hand_over(const struct keeper *keeper);
