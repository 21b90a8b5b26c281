// SPDX-License-Identifier: MIT
//
// The data folder of a life: locked before anything else is touched. What kvd has in it beside the
// store (kvd.gen, the socket) is made anew with it when it was removed.
#pragma once

struct service;

// A step of starting and stopping, as in service.c.
int service_folder_start(struct service *service);
void service_folder_stop(struct service *service);

/// Watches for its removal while nobody writes / no longer. Of the life that clients see.
void service_folder_watch(struct service *service);
void service_folder_unwatch(struct service *service);

/// Every turn: was it made anew?
void service_folder_turn(struct service *service);
