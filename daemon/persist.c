// SPDX-License-Identifier: MIT
//
// The persister's thread: when to commit, when to sleep, what to do after a failure, and the few
// words it shares with the loop. It sleeps without a timeout when nothing is to be done; the one
// race in that, work arriving while it falls asleep, is closed by a full fence on both sides: the
// sleeper says so and then looks for work once more, the bringer brings and then looks for a
// sleeper.
#include "daemon/persist.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "daemon/persist_internal.h"
#include "daemon/storage/map_guard.h"

#define NS_PER_MS UINT64_C(1000000)
#define BACKOFF_MAX_NS (5000 * NS_PER_MS)
#define LAZY_LOOK_NS (50 * NS_PER_MS) // how often a lazy wait looks whether lazy_bytes are reached
#define GATHER_LOOK_NS 100000	      // how long nothing may arrive before a group commit starts
#define STOP_FAILURES_MAX 3u
#define REPAIR_BACKOFF_MAX_NS (600000 * NS_PER_MS)
#define REPAIR_PATIENCE_NS (10000 * NS_PER_MS) // for a moment in which nobody waits

enum persist_due { DUE_COMMIT, DUE_COMPACT, DUE_REPAIR, DUE_PLACES, DUE_STOP };

static bool same_position(struct kvs_log_position a, struct kvs_log_position b)
{
	return a.segment == b.segment && a.offset == b.offset;
}

static bool work_waits(const struct persist *persist)
{
	return !same_position(kvs_log_published(persist->options.log), persist->position);
}

static bool someone_waits(const struct persist *persist)
{
	uint64_t failed = kvs_load_relaxed(&persist->failed_seq);
	uint64_t settled = persist->durable_seq > failed ? persist->durable_seq : failed;
	// Acquire: partner persist_request()'s release; the published position is read after it.
	return kvs_load_acquire(&persist->requested_seq) > settled;
}

static bool must_stop(const struct persist *persist)
{
	// Acquire: partner persist_stop()'s release.
	return kvs_load_acquire(&persist->stopping) != 0;
}

static void wait_until(struct persist *persist, uint64_t wake_at_ns)
{
	if (wake_at_ns == PERSIST_NEVER) {
		(void)pthread_cond_wait(&persist->wake, &persist->mutex);
		return;
	}
	// The clock of the seam need not be the system's: only the distance counts.
	uint64_t now_ns = persist->options.seam->monotonic_ns();
	struct timespec at;
	(void)clock_gettime(CLOCK_MONOTONIC, &at);
	uint64_t wait_ns = wake_at_ns > now_ns ? wake_at_ns - now_ns : 0;
	uint64_t at_ns = (uint64_t)at.tv_nsec + wait_ns;
	at.tv_sec += (time_t)(at_ns / 1000000000u);
	at.tv_nsec = (long)(at_ns % 1000000000u);
	(void)pthread_cond_timedwait(&persist->wake, &persist->mutex, &at);
}

// Sleeps until someone brings what `level` allows, or until `wake_at_ns`. Returns early at will:
// the caller looks at everything again.
static void persist_sleep(struct persist *persist, enum persist_sleep level, uint64_t wake_at_ns)
{
	pthread_mutex_lock(&persist->mutex);
	kvs_store_relaxed(&persist->sleeping, level);
	kvs_fence_full(); // partner: persist_bring()
	bool arrived =
		must_stop(persist) || kvs_load_acquire(&persist->distrusted) != 0 ||
		kvs_load_acquire(&persist->places_wanted) != 0 ||
		(level >= PERSIST_SLEEP_LAZY && someone_waits(persist) && work_waits(persist)) ||
		(level >= PERSIST_SLEEP_IDLE && work_waits(persist));
	if (!arrived && kvs_load_relaxed(&persist->sleeping) == level) {
		wait_until(persist, wake_at_ns);
	}
	kvs_store_relaxed(&persist->sleeping, PERSIST_AWAKE);
	pthread_mutex_unlock(&persist->mutex);
}

void persist_bring(struct persist *persist, enum persist_sleep level)
{
	kvs_fence_full(); // partner: persist_sleep()
	if (kvs_load_relaxed(&persist->sleeping) < level) {
		return;
	}
	pthread_mutex_lock(&persist->mutex);
	kvs_store_relaxed(&persist->sleeping, PERSIST_AWAKE);
	pthread_cond_signal(&persist->wake);
	pthread_mutex_unlock(&persist->mutex);
}

// When unpersisted work that nobody waits for is due.
static bool lazy_due(struct persist *persist, uint64_t now_ns, uint64_t *wake_at_ns)
{
	if (persist->work_since_ns == 0) {
		persist->work_since_ns = now_ns;
	}
	// Relaxed: single values (partner: persist_tune()).
	const struct persist_options *options = &persist->options;
	uint64_t due_ns = persist->work_since_ns + kvs_load_relaxed(&options->lazy_ms) * NS_PER_MS;
	struct kvs_log_position end = kvs_log_published(persist->options.log);
	if (now_ns >= due_ns || persist_log_bytes(persist->options.log, persist->position, end) >=
					kvs_load_relaxed(&options->lazy_bytes)) {
		return true;
	}
	*wake_at_ns = due_ns < now_ns + LAZY_LOOK_NS ? due_ns : now_ns + LAZY_LOOK_NS;
	return false;
}

// Group commit needs no delay: what arrives during a commit forms the next one. Measured on two
// quiet cores, 50 connections, pipelines of 100: 1.07 M SETs a second without, 1.08 M with up to 2
// ms of gathering; without pipelines 42 000 without, 34 000 with. So the bound is 0 unless someone
// sets it, for a machine whose processors are short (there it gave a third more). A lone client's
// request is committed at once all the same: only where several came since the last commit, hence
// more are likely on their way, the commit waits as long as records keep arriving, within the
// bound.
static void gather(struct persist *persist)
{
	uint64_t seen = persist->requests_seen;
	// Relaxed: a statistic of the loop's (partner: persist_request()).
	uint64_t arrived = kvs_load_relaxed(&persist->requests_count) - seen;
	bool company = arrived > 1 || persist->requests_gathered > 1;
	// Relaxed: a single value (partner: persist_tune()).
	uint64_t bound_ns = kvs_load_relaxed(&persist->options.group_delay_us) * UINT64_C(1000);
	if (persist->options.policy == PERSIST_GROUP && company && bound_ns > 0) {
		const struct seam *seam = persist->options.seam;
		uint64_t end_ns = seam->monotonic_ns() + bound_ns;
		struct kvs_log_position before;
		struct kvs_log_position after = kvs_log_published(persist->options.log);
		do {
			struct timespec look = { .tv_nsec = GATHER_LOOK_NS };
			(void)nanosleep(&look, NULL);
			before = after;
			after = kvs_log_published(persist->options.log);
		} while (!same_position(before, after) && seam->monotonic_ns() < end_ns);
	}
	persist->requests_seen = kvs_load_relaxed(&persist->requests_count);
	persist->requests_gathered = persist->requests_seen - seen;
}

// What is published now is what this round commits; what is appended meanwhile waits for the next.
static enum persist_due begin_round(struct persist *persist)
{
	if (!persist->round_open) {
		gather(persist);
		persist->round_end = kvs_log_published(persist->options.log);
		persist->round_open = true;
	}
	return DUE_COMMIT;
}

// A store with a block that cannot be read is written anew while memory still has everything: at
// once if nobody waits for a commit, for those would have to wait for all of it.
static bool repair_due(const struct persist *persist, uint64_t now_ns, uint64_t *wake_at_ns)
{
	if (!persist->compact.broken || persist->untrusted) {
		return false;
	}
	if (now_ns >= persist->repair_at_ns &&
	    (!someone_waits(persist) || now_ns - persist->repair_at_ns >= REPAIR_PATIENCE_NS)) {
		return true;
	}
	*wake_at_ns = persist->repair_at_ns > now_ns ? persist->repair_at_ns : *wake_at_ns;
	return false;
}

// Places are looked for between any two commits. They wait for nothing but a failure to pass.
static bool places_due(struct persist *persist, uint64_t now_ns, uint64_t *wake_at_ns)
{
	bool before = persist->places_before;
	persist->places_before = false;
	if (before || persist->backoff_ns > 0 || !persist_places_due(persist)) {
		return false;
	}
	if (now_ns < persist->places_retry_ns) {
		*wake_at_ns = persist->places_retry_ns;
		return false;
	}
	persist->places_before = true;
	return true;
}

// Sleeps until something is due, and says what.
static enum persist_due persist_wait(struct persist *persist)
{
	for (;;) {
		bool stop = must_stop(persist); // first: who stops may have distrusted before
		persist_take_distrust(persist);
		persist_places_take_wish(persist);
		bool work = work_waits(persist) || persist->untrusted || persist->unbegun;
		uint64_t now_ns = persist->options.seam->monotonic_ns();
		uint64_t wake_at_ns = PERSIST_NEVER;
		enum persist_sleep level = PERSIST_SLEEP_IDLE;
		if (stop && (!work || persist->stop_failures >= STOP_FAILURES_MAX)) {
			return DUE_STOP;
		}
		if (!stop && repair_due(persist, now_ns, &wake_at_ns)) {
			return DUE_REPAIR;
		}
		if (!stop && places_due(persist, now_ns, &wake_at_ns)) {
			return DUE_PLACES;
		}
		if (now_ns < persist->retry_at_ns && !stop) {
			wake_at_ns = persist->retry_at_ns;
			level = PERSIST_SLEEP_BACKOFF;
		} else if (work && (stop || persist->round_open || persist->untrusted ||
				    someone_waits(persist) || persist->backoff_ns > 0)) {
			return begin_round(persist);
		} else if (work) {
			if (lazy_due(persist, now_ns, &wake_at_ns)) {
				return begin_round(persist);
			}
			level = PERSIST_SLEEP_LAZY;
		} else if (persist_compact_idle_wanted(persist)) {
			return DUE_COMPACT;
		}
		persist_sleep(persist, level, wake_at_ns);
	}
}

static void tell_loop(struct persist *persist)
{
	if (persist->options.wake_fd >= 0) {
		uint64_t one = 1;
		// A full eventfd counter is as good as one more: the loop will look.
		ssize_t done =
			persist->options.seam->write(persist->options.wake_fd, &one, sizeof(one));
		(void)done;
	}
}

void persist_refuse(struct persist *persist, uint64_t seq)
{
	uint64_t requested = kvs_load_acquire(&persist->requested_seq); // as someone_waits()
	if (requested > seq) {
		seq = requested; // they would wait for an attempt that comes too late for them
	}
	// Release: state and text are there (partner: persist_failed_seq()).
	kvs_store_release(&persist->failed_seq, seq);
	tell_loop(persist);
}

// Failures after which nobody knows what the store holds, or which file it is. A retry could
// succeed and prove nothing: the kernel takes pages that did not arrive for written.
static bool loses_trust(const struct persist *persist)
{
	switch (persist->result) {
	case STORE_IO:
	case STORE_DAMAGED:
	case STORE_NO_ACCESS:
	case STORE_SYSTEM:
	case STORE_GONE:
		return persist->txn.failure == NULL; // else it is not the store that failed
	default:
		return false;
	}
}

static void commit_failed(struct persist *persist, uint64_t took_ns)
{
	uint64_t now_ns = persist->options.seam->monotonic_ns();
	persist->untrusted = persist->untrusted || loses_trust(persist);
	persist->backoff_ns =
		persist->backoff_ns == 0 ? PERSIST_BACKOFF_FIRST_NS : persist->backoff_ns * 2;
	if (persist->backoff_ns > BACKOFF_MAX_NS) {
		persist->backoff_ns = BACKOFF_MAX_NS;
	}
	// No more than half the time goes into attempts that write gigabytes and fail.
	persist->retry_at_ns =
		now_ns + (took_ns > persist->backoff_ns ? took_ns : persist->backoff_ns);
	persist->stop_failures++;
	persist->round_open = false; // the next attempt takes along what came meanwhile
	pthread_mutex_lock(&persist->mutex);
	const char *why = persist->txn.failure;
	strlcpy(persist->why, why != NULL ? why : store_why(persist->options.store),
		sizeof(persist->why));
	pthread_mutex_unlock(&persist->mutex);

	persist_count_waiting(persist);
	kvs_count(kvs_counter_word(persist->options.region_base, KVS_COUNTER_commits_failed), 1);
	// Release: the text is there (partner: persist_state()).
	kvs_store_release(&persist->degraded,
			  persist->untrusted ? PERSIST_UNTRUSTED : PERSIST_UNWRITABLE);
	persist_refuse(persist, persist->txn.target_seq);
}

static void publish_durable(struct persist *persist)
{
	// Release: the commit before it (partner: whoever acts on durable_seq, the loop and
	// clients).
	kvs_store_release(&persist->marks->durable_seq, persist->durable_seq);
	SEAM_CRASH(durable_published);
	kvs_store_release_32(&persist->marks->notify,
			     kvs_load_relaxed_32(&persist->marks->notify) + 1);
	(void)syscall(SYS_futex, &persist->marks->notify, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static void commit_succeeded(struct persist *persist, bool idle)
{
	persist->backoff_ns = 0;
	persist->retry_at_ns = 0;
	persist->stop_failures = 0;
	persist->unbegun = false;
	// Release: its own text is what persist_degraded() tells from now on.
	kvs_store_release(&persist->degraded,
			  persist->compact.broken ? PERSIST_UNCOMPACTED : PERSIST_GOOD);
	if (!idle) {
		publish_durable(persist); // last: who sees it sees that all is well, too
	}
	if (persist->round_open && same_position(persist->position, persist->round_end)) {
		persist->round_open = false;
		persist->work_since_ns = 0; // what came meanwhile starts its own interval
	}
	if (!idle || persist->options.collect_moves) {
		tell_loop(persist);
	}
}

// If it fails the old store is what it was: commits go on, nothing is compacted.
static void repair(struct persist *persist)
{
	const struct seam *seam = persist->options.seam;
	uint64_t begun_ns = seam->monotonic_ns();
	if (persist_renew(persist) == STORE_OK) {
		persist->repair_backoff_ns = 0;
		commit_succeeded(persist, false);
		return;
	}
	uint64_t now_ns = seam->monotonic_ns();
	uint64_t backoff_ns = persist->repair_backoff_ns == 0 ? PERSIST_BACKOFF_FIRST_NS
							      : persist->repair_backoff_ns * 2;
	persist->repair_backoff_ns =
		backoff_ns < REPAIR_BACKOFF_MAX_NS ? backoff_ns : REPAIR_BACKOFF_MAX_NS;
	uint64_t took_ns = now_ns - begun_ns;
	persist->repair_at_ns =
		now_ns +
		(took_ns > persist->repair_backoff_ns ? took_ns : persist->repair_backoff_ns);
	persist->round_open = false;
}

// The last look at what nothing was written to lately: while memory has all that was in it.
static bool store_is_there(struct persist *persist)
{
	persist->txn = (struct persist_txn){ .target_seq = persist->durable_seq };
	persist->result = store_begin(persist->options.store);
	if (persist->result == STORE_OK) {
		store_abort(persist->options.store);
	}
	return persist->result == STORE_OK;
}

static void *persist_main(void *argument)
{
	struct persist *persist = argument;
	// Signals are the loop's; blocked here, a file size limit is an error and not a death.
	sigset_t all;
	sigfillset(&all);
	map_guard_unblock(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, NULL);
	(void)pthread_setname_np(pthread_self(), "kvd-persist");
	for (;;) {
		enum persist_due due = persist_wait(persist);
		if (due == DUE_STOP && (persist->stop_failures > 0 || store_is_there(persist))) {
			return NULL;
		}
		if (due == DUE_STOP) {
			commit_failed(persist, 0);
			continue;
		}
		if (due == DUE_REPAIR) {
			repair(persist);
			continue;
		}
		if (due == DUE_PLACES) {
			persist_places_step(persist);
			tell_loop(persist);
			continue;
		}
		bool idle = due == DUE_COMPACT;
		uint64_t begun_ns = persist->options.seam->monotonic_ns();
		persist->result =
			persist->untrusted ? persist_renew(persist) : persist_commit(persist, idle);
		if (persist->result == STORE_OK) {
			commit_succeeded(persist, idle);
		} else {
			commit_failed(persist, persist->options.seam->monotonic_ns() - begun_ns);
		}
	}
}

int persist_start(struct persist **out, const struct persist_options *options)
{
	struct persist *persist = persist_new(options);
	if (persist == NULL) {
		return -ENOMEM;
	}
	int rc = pthread_create(&persist->thread, NULL, persist_main, persist);
	if (rc != 0) {
		persist_free(persist);
		return -rc;
	}
	*out = persist;
	return 0;
}

int persist_stop(struct persist *persist, char *why, size_t why_bytes)
{
	// Release: all that was appended before (partner: must_stop()'s acquire).
	kvs_store_release(&persist->stopping, 1);
	persist_bring(persist, PERSIST_SLEEP_BACKOFF);
	pthread_join(persist->thread, NULL);
	int result = work_waits(persist) || persist->untrusted ? persist->result : STORE_OK;
	if (result != STORE_OK) {
		strlcpy(why, persist->why, why_bytes);
	}
	persist_free(persist);
	return result;
}
