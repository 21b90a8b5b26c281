// SPDX-License-Identifier: MIT
//
// The reading. While kvd writes beside it, a snapshot is held for one slice only: what stood in the
// store when the reading began is met, for compaction moves records to the end, where the reading
// has not been, and deletes only what it moved or nobody needs.
#include "daemon/storage/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/storage/pages.h"
#include "daemon/storage/verify_internal.h"

#define SLICE_BLOCKS 128u // of one snapshot, while somebody writes
#define CPU_SECONDS_BASE 60u
#define CPU_BYTES_PER_SECOND (UINT64_C(20) << 20) // far below what it does
#define IOPRIO_IDLE (3 << 13)
#define IOPRIO_WHO_PROCESS 1

void store_verify_limit(uint64_t file_bytes)
{
	rlim_t seconds = CPU_SECONDS_BASE + file_bytes / CPU_BYTES_PER_SECOND;
	struct rlimit limit = { .rlim_cur = seconds, .rlim_max = seconds + 1 };
	(void)setrlimit(RLIMIT_CPU, &limit); // if refused, it is merely not bounded
	struct rlimit no_core = { 0, 0 };
	(void)setrlimit(RLIMIT_CORE, &no_core); // a crash here is an answer
	(void)setpriority(PRIO_PROCESS, 0, 10);
	(void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE); // a hint
}

static int failed(const struct verify_options *options, const char *why)
{
	(void)fprintf(options->out, "failed %s\n", why);
	return VERIFY_FAILED;
}

static uint64_t bytes_of(const struct verify_options *options)
{
	char path[4096];
	struct stat facts;
	if (options->file != NULL) {
		return options->file_bytes;
	}
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", options->dir);
	return stat(path, &facts) == 0 ? (uint64_t)facts.st_size : 0;
}

// Before LMDB follows them.
static int look_at_pages(struct verify *verify)
{
	const struct verify_options *options = verify->options;
	char path[4096];
	char why[200] = "";
	if (options->file != NULL) {
		(void)snprintf(path, sizeof(path), "%s", options->file);
	} else {
		(void)snprintf(path, sizeof(path), "%s/store/data.mdb", options->dir);
	}
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return VERIFY_GOOD; // opening it as a store says it better
	}
	int result = store_pages_check(fd, bytes_of(options), false, why, sizeof(why));
	(void)close(fd);
	if (result > 0) {
		return failed(options, "nothing was ever committed to it");
	}
	if (result < 0) {
		verify_damage(verify, 0, 0, NULL, 0, why);
		return VERIFY_DAMAGED;
	}
	return VERIFY_GOOD;
}

static bool read_expected(struct verify *verify)
{
	FILE *in = verify->options->expected;
	struct verify_expected one;
	if (in == NULL) {
		return true;
	}
	if (fread(&verify->hash_seed, sizeof(verify->hash_seed), 1, in) != 1) {
		return false;
	}
	while (fread(&one, sizeof(one), 1, in) == 1) {
		struct verify_key *key = verify_keys_at(&verify->keys, one.hash);
		if (key == NULL) {
			return false;
		}
		key->known = one.seq;
	}
	return ferror(in) == 0;
}

static void say_progress(const struct verify *verify)
{
	(void)fprintf(verify->options->out, "progress %llu %llu\n",
		      (unsigned long long)verify->bytes,
		      (unsigned long long)verify->facts.log_bytes);
	(void)fflush(verify->options->out);
}

// The block under the cursor. False: it is beyond the log's end.
static bool visit(struct verify *verify, uint64_t number, size_t bytes)
{
	if (number < verify->next_block || number >= verify->facts.next_block) {
		verify_damage(verify, number, 0, NULL, 0, "it is no block of this log");
		return false;
	}
	if (number > verify->next_block && number > verify->facts.oldest_block) {
		verify_span_drop(verify, "a long record goes on in a block that is missing");
		verify_damage(verify, verify->next_block, 0, NULL, 0, "it is missing");
	}
	verify->next_block = number + 1;
	verify->blocks += !verify->naming;
	verify->bytes += verify->naming ? 0 : store_block_file_bytes(bytes);
	if (bytes > sizeof(verify->copy)) {
		verify_damage(verify, number, 0, NULL, 0, "it is too long");
		return true;
	}
	verify_block(verify, number, verify->copy, bytes);
	return true;
}

// A snapshot's share. Returns 1 if there is more, 0 at the end, -1 if it could not be read.
static int read_slice(struct verify *verify)
{
	struct env *env = verify->store->env;
	if (store_meta_read(verify->store, &verify->facts) != STORE_OK) {
		verify_damage(verify, 0, 0, NULL, 0, store_why(verify->store));
		return -1;
	}
	if (verify->next_block < verify->facts.oldest_block) {
		verify_span_drop(verify, NULL); // moved, and met again
		verify->next_block = verify->facts.oldest_block;
	}
	uint64_t number = verify->next_block;
	struct env_value value = { .out = verify->copy, .out_bytes = sizeof(verify->copy) };
	int rc = env_open_cursor(env);
	if (rc == 0) {
		rc = env_walk(env, MDB_SET_RANGE, &number, &value);
	}
	unsigned left = verify->options->alone ? UINT32_MAX : SLICE_BLOCKS;
	bool good = true;
	while (rc == 0 && good && left > 0 && !verify->no_memory) {
		good = visit(verify, number, value.bytes);
		if (--left % SLICE_BLOCKS == 0 && !verify->naming) {
			say_progress(verify);
		}
		rc = good && left > 0 ? env_walk(env, MDB_NEXT, &number, &value) : rc;
	}
	if (rc == ENOMEM) {
		verify->no_memory = true; // which is not the store's fault
		return -1;
	}
	if (rc != 0 && rc != MDB_NOTFOUND) {
		char why[128];
		(void)snprintf(why, sizeof(why), "reading it failed: %s", mdb_strerror(rc));
		verify_damage(verify, verify->next_block, 0, NULL, 0, why);
		return -1;
	}
	if (rc == MDB_NOTFOUND && verify->next_block < verify->facts.next_block) {
		verify_damage(verify, verify->next_block, 0, NULL, 0, "it is missing");
	}
	return rc == 0 && good ? 1 : 0;
}

static int read_all(struct verify *verify)
{
	int rc = env_begin(verify->store->env, false);
	if (rc != 0) {
		return failed(verify->options, mdb_strerror(rc));
	}
	verify->next_block = 1;
	int more;
	while ((more = read_slice(verify)) > 0 && !verify->no_memory) {
		rc = env_renew(verify->store->env);
		if (rc != 0) {
			break;
		}
	}
	verify_span_drop(verify, verify->no_memory ? NULL : "a long record has no end");
	env_abort(verify->store->env);
	if (verify->no_memory || rc != 0) {
		return failed(verify->options, rc != 0 ? mdb_strerror(rc) : "out of memory");
	}
	if (more < 0 && verify->damaged == 0) {
		return failed(verify->options, "it cannot be read, for lack of memory");
	}
	if (more == 0 && verify->options->alone && !verify->naming &&
	    verify->bytes != verify->facts.log_bytes) {
		verify_damage(verify, 0, 0, NULL, 0,
			      "its blocks are not as long as those that were written");
	}
	return VERIFY_GOOD;
}

// What memory has and the store has not; true if the store has a value that memory did not name.
static bool compare(struct verify *verify, uint64_t *live)
{
	struct verify_keys *keys = &verify->keys;
	bool extra = false;
	*live = 0;
	for (size_t i = 0; i < keys->capacity; i++) {
		const struct verify_key *key = &keys->slots[i];
		uint64_t expected = key->known & ~VERIFY_REQUIRED;
		bool lives = key->hash != 0 && verify_key_lives(keys, key);
		*live += lives;
		extra = extra || (lives && key->known == 0);
		if ((key->known & VERIFY_REQUIRED) != 0 && key->winner >> 1 < expected &&
		    keys->flush_seq < expected) {
			(void)fprintf(verify->options->out, "missing %llu %llu\n",
				      (unsigned long long)key->hash, (unsigned long long)expected);
		}
	}
	return extra && verify->options->expected != NULL;
}

static int report(struct verify *verify)
{
	uint64_t live;
	int code = read_all(verify);
	if (code != VERIFY_GOOD) {
		return code;
	}
	say_progress(verify);
	struct store_facts facts = verify->facts;
	if (compare(verify, &live)) {
		verify->naming = true;
		code = read_all(verify);
	}
	(void)fprintf(verify->options->out, "damaged %llu\n", (unsigned long long)verify->damaged);
	(void)fprintf(verify->options->out, "done %llu %llu %llu %llu %llu\n",
		      (unsigned long long)verify->blocks, (unsigned long long)verify->records,
		      (unsigned long long)verify->bytes, (unsigned long long)live,
		      (unsigned long long)facts.durable_seq);
	return code == VERIFY_GOOD && verify->damaged > 0 ? VERIFY_DAMAGED : code;
}

static int verify_open(struct verify *verify)
{
	char why[512];
	int code = verify->options->alone ? look_at_pages(verify) : VERIFY_GOOD;
	if (code == VERIFY_DAMAGED) { // LMDB is not to follow that
		(void)fprintf(verify->options->out, "damaged 1\ndone 0 0 0 0 0\n");
	}
	if (code != VERIFY_GOOD) {
		return code;
	}
	struct store_options options = {
		.dir = verify->options->dir,
		.file = verify->options->file,
		.read_only = true,
		.alone = verify->options->alone,
	};
	int result = store_open(&verify->store, &options, why, sizeof(why));
	if (result == STORE_DAMAGED) {
		verify_damage(verify, 0, 0, NULL, 0, why);
		(void)fprintf(verify->options->out, "damaged 1\ndone 0 0 0 0 0\n");
		return VERIFY_DAMAGED;
	}
	return result == STORE_OK ? VERIFY_GOOD : failed(verify->options, why);
}

int store_verify(const struct verify_options *options)
{
	struct verify *verify = calloc(1, sizeof(*verify));
	if (verify == NULL || !verify_keys_init(&verify->keys)) {
		free(verify);
		return failed(options, "out of memory");
	}
	verify->options = options;
	int code = read_expected(verify) ? verify_open(verify)
					 : failed(options, "what memory has could not be read");
	if (code == VERIFY_GOOD) {
		code = report(verify);
	}
	store_close(verify->store);
	verify_keys_fini(&verify->keys);
	free(verify);
	return fflush(options->out) == 0 ? code : VERIFY_FAILED;
}

int store_verify_child(const char *dir, const char *how)
{
	struct verify_options options = {
		.dir = dir,
		.alone = strcmp(how, "alone") == 0,
		.expected = strcmp(how, "compare") == 0 ? stdin : NULL,
		.out = stdout,
	};
	store_verify_limit(bytes_of(&options));
	return store_verify(&options);
}
