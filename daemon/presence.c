// SPDX-License-Identifier: MIT
//
// The list of robust futexes that the kernel walks when a thread ends is one a thread, and glibc
// has one for every thread's mutexes (LMDB's are such). So this thread is one that has none, and
// its list is ours: one entry, in kvd's own memory, at whatever distance from the word it stands.
// The kernel compares the word with the number of the thread that ends, so a word that is 0 again,
// or a later kvd's, is left alone. A forked child begins without a list.
#include "daemon/presence.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/log.h"
#include "shm/atomics.h"
#include "shm/layout.h"

static_assert(KVS_WRITER_DIED == FUTEX_OWNER_DIED, "what the kernel leaves is what readers know");

struct presence {
	pthread_t thread;
	sem_t begun; // the word is set, or `error` says why not
	sem_t over;
	int error;
	uint32_t *word;
	// Not on the thread's stack: the kernel looks when that is over.
	struct robust_list_head list;
	struct robust_list entry;
};

static void wait_for(sem_t *semaphore)
{
	while (sem_wait(semaphore) != 0 && errno == EINTR) {
	}
}

static void *presence_thread(void *context)
{
	struct presence *presence = context;
	(void)pthread_setname_np(pthread_self(), "kvd-presence");
	presence->entry.next = &presence->list.list;
	presence->list.list.next = &presence->entry;
	presence->list.futex_offset = (char *)presence->word - (char *)&presence->entry;
	if (syscall(SYS_set_robust_list, &presence->list, sizeof(presence->list)) == 0) {
		// Release: partner is the client's load at begin; what it may read is published.
		kvs_store_release_32(presence->word, (uint32_t)gettid());
	} else {
		presence->error = errno;
	}
	(void)sem_post(&presence->begun);
	wait_for(&presence->over);
	return NULL;
}

int presence_start(struct presence **out, uint32_t *word)
{
	*out = NULL;
	struct presence *presence = calloc(1, sizeof(*presence));
	if (presence == NULL) {
		return -ENOMEM;
	}
	presence->word = word;
	(void)sem_init(&presence->begun, 0, 0);
	(void)sem_init(&presence->over, 0, 0);
	int error = pthread_create(&presence->thread, NULL, presence_thread, presence);
	if (error != 0) {
		free(presence);
		return -error;
	}
	wait_for(&presence->begun);
	if (presence->error != 0) {
		log_warning("this kernel has no robust futexes (%s): while kvd serves its readers "
			    "look at kvd.gen each time, which costs them a system call",
			    strerror(presence->error));
	}
	*out = presence;
	return 0;
}

void presence_end(struct presence *presence)
{
	if (presence == NULL) {
		return;
	}
	// Before the thread ends, which would be taken for kvd's death. Release: as above.
	kvs_store_release_32(presence->word, 0);
	(void)sem_post(&presence->over);
	(void)pthread_join(presence->thread, NULL);
	(void)sem_destroy(&presence->begun);
	(void)sem_destroy(&presence->over);
	free(presence);
}
