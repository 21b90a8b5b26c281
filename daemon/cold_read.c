// SPDX-License-Identifier: MIT
//
// The threads that read. A load in line belongs to the mutex, one that was begun to its thread,
// until it stands in `done`. The value is copied once more into the buffer that replies share, so
// that the loop never copies a large one.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/cold_parts.h"
#include "daemon/kvd.h"
#include "daemon/loop.h"
#include "daemon/parcel.h"

static void read_one(struct cold_thread *thread, struct cold_load *load)
{
	struct store_record record;
	const struct store_wanted wanted = {
		.place = load->place,
		.seq = load->seq,
		.key = load->key,
		.key_bytes = load->key_bytes,
		.value_bytes = load->value_bytes,
	};
	load->result = store_reader_read(thread->reader, &wanted, &record);
	if (load->result != STORE_OK) {
		const char *why = load->result < 0 ? store_reader_why(thread->reader) : "";
		(void)snprintf(load->why, sizeof(load->why), "%s", why);
		return;
	}
	load->value = parcel_create(load->value_bytes);
	if (load->value != NULL) {
		memcpy(load->value->data, record.value, load->value_bytes);
	} else {
		load->result = STORE_NO_MEMORY;
		(void)snprintf(load->why, sizeof(load->why), "no memory for it");
	}
	free(record.bytes);
}

// Something is done: the loop has a turn.
static void tell_loop(const struct cold *cold)
{
	const uint64_t one = 1;
	// It may be full: then a turn is on its way already.
	ssize_t written = write(loop_wake_fd(cold->kvd->loop), &one, sizeof(one));
	(void)written;
}

static void *read_thread(void *argument)
{
	struct cold_thread *thread = argument;
	struct cold *cold = thread->cold;
	(void)pthread_setname_np(pthread_self(), "kvd-load");
	(void)pthread_mutex_lock(&cold->mutex);
	while (!cold->stops) {
		struct cold_load *load = TAILQ_FIRST(&cold->todo);
		if (load == NULL) {
			(void)pthread_cond_wait(&cold->wake, &cold->mutex);
			continue;
		}
		TAILQ_REMOVE(&cold->todo, load, queue);
		load->in_line = false;
		(void)pthread_mutex_unlock(&cold->mutex);
		read_one(thread, load);
		(void)pthread_mutex_lock(&cold->mutex);
		TAILQ_INSERT_TAIL(&cold->done, load, queue);
		tell_loop(cold);
	}
	(void)pthread_mutex_unlock(&cold->mutex);
	return NULL;
}

int cold_threads_start(struct cold *cold, struct store *store)
{
	int error = 0;
	(void)pthread_mutex_init(&cold->mutex, NULL);
	(void)pthread_cond_init(&cold->wake, NULL);
	for (unsigned i = 0; i < COLD_THREADS && error == 0; i++) {
		struct cold_thread *thread = &cold->threads[i];
		thread->cold = cold;
		unsigned index = STORE_READER_LOADS + i;
		error = store_reader_open(&thread->reader, store, index) == STORE_OK ? 0 : ENOMEM;
		if (error == 0) {
			error = pthread_create(&thread->thread, NULL, read_thread, thread);
			thread->is_started = error == 0;
		}
	}
	return -error;
}

void cold_threads_stop(struct cold *cold)
{
	(void)pthread_mutex_lock(&cold->mutex);
	cold->stops = true;
	(void)pthread_mutex_unlock(&cold->mutex);
	for (unsigned i = 0; i < COLD_THREADS; i++) {
		// One signal for each: whoever reads just now looks before it sleeps.
		(void)pthread_cond_signal(&cold->wake);
	}
	for (unsigned i = 0; i < COLD_THREADS; i++) {
		struct cold_thread *thread = &cold->threads[i];
		if (thread->is_started) {
			(void)pthread_join(thread->thread, NULL);
		}
		store_reader_close(thread->reader);
	}
	(void)pthread_cond_destroy(&cold->wake);
	(void)pthread_mutex_destroy(&cold->mutex);
}

void cold_threads_give(struct cold *cold, struct cold_load *load)
{
	(void)pthread_mutex_lock(&cold->mutex);
	load->in_line = true;
	TAILQ_INSERT_TAIL(&cold->todo, load, queue);
	(void)pthread_cond_signal(&cold->wake);
	(void)pthread_mutex_unlock(&cold->mutex);
}

bool cold_threads_take_back(struct cold *cold, struct cold_load *load)
{
	(void)pthread_mutex_lock(&cold->mutex);
	bool in_line = load->in_line;
	if (in_line) {
		TAILQ_REMOVE(&cold->todo, load, queue);
		load->in_line = false;
	}
	(void)pthread_mutex_unlock(&cold->mutex);
	return in_line;
}

struct cold_load *cold_threads_next(struct cold *cold)
{
	(void)pthread_mutex_lock(&cold->mutex);
	struct cold_load *load = TAILQ_FIRST(&cold->done);
	if (load != NULL) {
		TAILQ_REMOVE(&cold->done, load, queue);
	}
	(void)pthread_mutex_unlock(&cold->mutex);
	return load;
}
