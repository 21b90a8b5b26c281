// SPDX-License-Identifier: MIT
//
// A forked child inherits a client and must not behave like its parent: no store to its pages, no
// byte on its socket, no end to its sections; and whatever the child does first attaches it anew.
// H: a child cannot disturb its parent's reads.
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libclient/internal.h"
#include "tests/lib/wipeonfork.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (8u << 20)

struct family {
	struct fake *fake;
	kvc *client;
	kvc_reader *reader;
	struct kvc_token token; // of "a"
};

static pid_t fork_raw(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

// Runs `child` in a child made by `make`; its result, or 128 + the signal that killed it.
static int in_child(pid_t (*make)(void), int (*child)(struct family *), struct family *family)
{
	pid_t pid = make();
	if (pid == 0) {
		_exit(child(family));
	}
	int status = 0;
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		return 255;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int child_gets(struct family *f)
{
	char byte = 0;
	const struct kvc_attachment *inherited = f->client->attachment;
	if (inherited && msync(inherited->pages[0], KVS_PAGE_BYTES, MS_ASYNC) == 0) {
		return 5; // the parent's reader page is not even mapped here
	}
	if (kvc_is_mapped(f->client)) {
		return 6; // nor is anything else, as far as it knows
	}
	if (kvc_get(f->reader, "a", 1, &byte, 1, NULL) != KVC_OK || byte != '1') {
		return 1;
	}
	if (!kvc_is_mapped(f->client)) {
		return 2;
	}
	if (kvc_set(f->client, "from-child", 10, "c", 1, NULL, NULL) != KVC_OK) {
		return 3;
	}
	return kvc_close(f->client) == KVC_OK ? 0 : 4;
}

static int child_ends(struct family *f)
{
	struct kvc_view view;
	char byte;
	if (kvc_view(f->reader, "a", 1, &view) != KVC_REVOKED) {
		return 1;
	}
	if (kvc_get(f->reader, "a", 1, &byte, 1, NULL) != KVC_REVOKED) {
		return 2;
	}
	struct kvc_item item = { .key = "a", .key_bytes = 1 };
	uint64_t applied, durable;
	if (kvc_watermarks(f->reader, &applied, &durable) != KVC_REVOKED ||
	    kvc_get_many(f->reader, &item, 1, 0) != KVC_REVOKED ||
	    kvc_check(f->reader, &f->token) != KVC_CHANGED) {
		return 6;
	}
	if (kvc_begin(f->reader) != KVC_OK || kvc_end(f->reader) != KVC_REVOKED) {
		return 3;
	}
	if (kvc_end(f->reader) != KVC_REVOKED || kvc_end(f->reader) != KVC_INVALID) {
		return 4;
	}
	if (kvc_begin(f->reader) != KVC_OK || kvc_view(f->reader, "a", 1, &view) != KVC_OK ||
	    *(const char *)view.value != '1' || kvc_end(f->reader) != KVC_OK) {
		return 5;
	}
	return 0;
}

// Each as the first thing that a child does in its parent's section.
static int child_gets_first(struct family *f)
{
	char byte;
	return kvc_get(f->reader, "a", 1, &byte, 1, NULL) == KVC_REVOKED ? 0 : 1;
}

static int child_gets_many_first(struct family *f)
{
	struct kvc_item item = { .key = "a", .key_bytes = 1 };
	return kvc_get_many(f->reader, &item, 1, 0) == KVC_REVOKED ? 0 : 1;
}

static int child_checks_first(struct family *f)
{
	return kvc_check(f->reader, &f->token) == KVC_CHANGED ? 0 : 1;
}

static int child_closes_reader(struct family *f)
{
	return kvc_reader_close(f->reader) == KVC_OK && kvc_close(f->client) == KVC_OK ? 0 : 1;
}

static int child_closes(struct family *f)
{
	return kvc_close(f->client) == KVC_OK ? 0 : 1; // with the parent's section "open"
}

static int child_of_child(struct family *f)
{
	char byte;
	if (kvc_get(f->reader, "a", 1, &byte, 1, NULL) != KVC_OK) {
		return 1;
	}
	return in_child(fork, child_gets, f);
}

static void test_children(struct family *f, pid_t (*make)(void), const char *how)
{
	struct kvs_slot *slot = f->reader->slot;
	uint64_t word = slot->word, attached = fake_get(f->fake, &f->fake->attached);
	ok_int(in_child(make, child_gets, f), 0, "%s: a child reads, writes and closes", how);
	ok_u64(fake_get(f->fake, &f->fake->attached), attached + 1, "%s: attached by itself", how);
	ok(f->reader->slot == slot && slot->word == word, "%s: the parent's slot is as it was",
	   how);
	struct kvc_view view;
	ok_int(kvc_begin(f->reader), KVC_OK, "%s: a section", how);
	ok_int(kvc_view_token(f->reader, "a", 1, &view, &f->token), KVC_OK, "%s: a view", how);
	word = slot->word;
	ok_int(in_child(make, child_ends, f), 0, "%s: the child's end says REVOKED", how);
	ok_u64(slot->word, word, "H: %s: and stores nothing", how);
	ok_int(in_child(make, child_gets_first, f), 0, "%s: so does its get", how);
	ok_int(in_child(make, child_gets_many_first, f), 0, "%s: and of many", how);
	ok_int(in_child(make, child_checks_first, f), 0, "%s: its token stands for nothing", how);
	ok_int(in_child(make, child_closes_reader, f), 0, "%s: a child may close a reader", how);
	ok_int(in_child(make, child_closes, f), 0, "%s: a child may close", how);
	ok_u64(slot->word, word, "H: %s: and stores nothing", how);
	ok(*(const char *)view.value == '1', "%s: the parent's view stands", how);
	ok_int(kvc_end(f->reader), KVC_OK, "%s: the parent's end", how);
	ok_int(in_child(make, child_of_child, f), 0, "%s: a child of a child", how);
	ok_int(kvc_set(f->client, "b", 1, "2", 1, NULL, NULL), KVC_OK, "%s: the parent writes",
	       how);
}

static int child_pipeline(struct family *f)
{
	const struct kvc_reply *reply;
	if (kvc_pipeline_reply(f->client, &reply) != KVC_INVALID) {
		return 1; // the parent's command is none of the child's
	}
	return kvc_set(f->client, "c", 1, "3", 1, NULL, NULL) == KVC_OK ? 0 : 2;
}

static void test_pipeline(struct family *f)
{
	const void *argv[] = { "ECHO", "one" };
	const size_t bytes[] = { 4, 3 };
	const struct kvc_reply *reply;
	ok_int(kvc_pipeline_append(f->client, 2, argv, bytes), KVC_OK, "a queued command");
	ok_int(in_child(fork, child_pipeline, f), 0, "is not the child's");
	ok(kvc_pipeline_reply(f->client, &reply) == KVC_OK && strcmp(reply->text, "one") == 0,
	   "but the parent's");
}

// The mutex held by another thread at the moment of the fork must not lock the child out.
static uint64_t holds_mutex;

static void *hold_mutex(void *context)
{
	struct family *f = context;
	kvc_client_lock(f->client);
	kvs_store_release(&holds_mutex, 1); // partner: the load in test_locked()
	pthread_mutex_t *gate =
		&f->fake->mutex; // released by the parent when its children are done
	pthread_mutex_lock(gate);
	pthread_mutex_unlock(gate);
	kvc_client_unlock(f->client);
	return NULL;
}

static int child_locked(struct family *f)
{
	kvc_client_lock(f->client);
	kvc_client_unlock(f->client);
	return f->client->leaks && f->client->generation == 2 ? 0 : 1;
}

static void test_locked(struct family *f)
{
	pthread_t thread;
	pthread_mutex_lock(&f->fake->mutex);
	pthread_create(&thread, NULL, hold_mutex, f);
	while (kvs_load_acquire(&holds_mutex) == 0) {
		sched_yield();
	}
	ok_int(in_child(fork, child_locked, f), 0,
	       "a mutex held at the fork does not stop the child");
	pthread_mutex_unlock(&f->fake->mutex);
	pthread_join(thread, NULL);
	ok_int(in_child(fork, child_gets, f), 0, "children after that are well");
	f->client->busy = true; // as if another thread were inside at the moment of the fork
	ok_int(in_child(fork, child_gets, f), 0, "one that was made amid a change is, too");
	f->client->busy = false;
}

int main(void)
{
	if (!wipes_on_fork()) {
		printf("1..0 # SKIP %s\n", WIPES_ON_FORK_NOT);
		return 0;
	}
	struct fake fake;
	struct family family = { .fake = &fake };
	fake_start(&fake, MEMORY_BYTES);
	fake_put_text(&fake, "a", "1");
	family.client = fake_client(&fake, &family.reader, 0);
	char byte;
	ok_int(kvc_get(family.reader, "a", 1, &byte, 1, NULL), KVC_OK, "attached");
	test_children(&family, fork, "fork");
	test_children(&family, fork_raw, "clone");
	test_pipeline(&family);
	test_locked(&family);
	ok_int(kvc_close(family.client), KVC_OK, "close");
	fake_stop(&fake);
	return tap_done();
}
