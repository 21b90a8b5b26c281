// SPDX-License-Identifier: MIT
//
// One segment at a time is handed over; the thread sleeps on a condition variable in between. If
// the machine is full the segment comes back without pages and the writer meets the error itself.
#include "daemon/prepare.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "shm/log.h"

enum prepare_state { PREPARE_IDLE, PREPARE_ASKED, PREPARE_DONE, PREPARE_STOP };

struct prepare {
	const struct kvs_region *region;
	pthread_t thread;
	pthread_mutex_t lock; // guards what follows
	pthread_cond_t asked;
	enum prepare_state state;
	uint32_t segment;
	bool populated;
};

static void *prepare_thread(void *argument)
{
	struct prepare *prepare = argument;
	(void)pthread_mutex_lock(&prepare->lock);
	for (;;) {
		while (prepare->state != PREPARE_ASKED && prepare->state != PREPARE_STOP) {
			(void)pthread_cond_wait(&prepare->asked, &prepare->lock);
		}
		if (prepare->state == PREPARE_STOP) {
			break;
		}
		uint32_t segment = prepare->segment;
		(void)pthread_mutex_unlock(&prepare->lock);
		int result = kvs_region_populate(
			prepare->region, kvs_region_segment_offset(prepare->region, segment),
			prepare->region->segment_bytes);
		(void)pthread_mutex_lock(&prepare->lock);
		prepare->populated = result == 0;
		if (prepare->state == PREPARE_ASKED) {
			prepare->state = PREPARE_DONE;
		}
	}
	(void)pthread_mutex_unlock(&prepare->lock);
	return NULL;
}

int prepare_start(struct prepare **out, const struct kvs_region *region)
{
	struct prepare *prepare = calloc(1, sizeof(*prepare));
	if (prepare == NULL) {
		return -ENOMEM;
	}
	prepare->region = region;
	(void)pthread_mutex_init(&prepare->lock, NULL);
	(void)pthread_cond_init(&prepare->asked, NULL);
	int error = pthread_create(&prepare->thread, NULL, prepare_thread, prepare);
	if (error != 0) {
		free(prepare);
		return -error;
	}
	*out = prepare;
	return 0;
}

void prepare_turn(struct prepare *prepare, struct kvs_log *log)
{
	if (prepare == NULL || pthread_mutex_trylock(&prepare->lock) != 0) {
		return;
	}
	if (prepare->state == PREPARE_DONE) {
		kvs_log_prepare_end(log, prepare->segment, prepare->populated);
		prepare->state = PREPARE_IDLE;
	}
	if (prepare->state == PREPARE_IDLE) {
		uint32_t segment = kvs_log_prepare_begin(log, PREPARE_AHEAD);
		if (segment != KVS_SEGMENT_NONE) {
			prepare->segment = segment;
			prepare->state = PREPARE_ASKED;
			(void)pthread_cond_signal(&prepare->asked);
		}
	}
	(void)pthread_mutex_unlock(&prepare->lock);
}

void prepare_stop(struct prepare *prepare)
{
	if (prepare == NULL) {
		return;
	}
	(void)pthread_mutex_lock(&prepare->lock);
	prepare->state = PREPARE_STOP;
	(void)pthread_cond_signal(&prepare->asked);
	(void)pthread_mutex_unlock(&prepare->lock);
	(void)pthread_join(prepare->thread, NULL);
	(void)pthread_mutex_destroy(&prepare->lock);
	(void)pthread_cond_destroy(&prepare->asked);
	free(prepare);
}
