// SPDX-License-Identifier: MIT
//
// The look at memory: each entry of the table, the record and the value behind it, and whether a
// search comes to it. A key may be written, or its chain be rebuilt, between the walk's look at an
// entry and the search: what seems out of reach is looked at again before it is called so.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/job_verify.h"
#include "shm/crc32c.h"
#include "shm/table.h"

#define LOOK_SECTION_BYTES (UINT64_C(1) << 20)
#define LOOK_AGAIN_MAX 5u
#define LOOK_REVOCATIONS_MAX 1000u

static void hex(char *to, const unsigned char *key, size_t key_bytes)
{
	for (size_t i = 0; i < key_bytes; i++) {
		(void)snprintf(to + 2 * i, 3, "%02x", key[i]);
	}
	to[2 * key_bytes] = '\0';
}

void verification_find(struct verification *v, const char *where, uint64_t block, uint64_t seq,
		       const char *key_hex, const char *what)
{
	if (v->named++ >= VERIFICATION_NAMED_MAX) {
		return;
	}
	text_printf(&v->found, "%s{\"where\":\"%s\"", v->found.bytes > 0 ? "," : "", where);
	if (block != 0) {
		text_printf(&v->found, ",\"block\":%llu", (unsigned long long)block);
	}
	if (seq != 0) {
		text_printf(&v->found, ",\"version\":%llu", (unsigned long long)seq);
	}
	if (key_hex[0] != '\0') {
		text_printf(&v->found, ",\"key_hex\":\"%s\"", key_hex);
	}
	text_printf(&v->found, ",\"what\":");
	text_json_string(&v->found, what);
	text_printf(&v->found, "}");
}

static struct memory_doubt *doubt(struct memory_look *look, const struct kvs_record_view *view,
				  const char *what)
{
	struct memory_doubt *one = &look->doubts[MEMORY_DOUBTS_MAX - 1];
	if (look->doubts_count < MEMORY_DOUBTS_MAX) {
		one = &look->doubts[look->doubts_count];
	}
	look->doubts_count++;
	*one = (struct memory_doubt){ .what = what };
	if (view != NULL) {
		hex(one->key_hex, view->key, view->key_bytes);
		one->seq = view->seq;
	}
	return one;
}

// Would a search find it?
static bool is_reached(const struct memory_look *look, const struct kvs_record_view *view)
{
	struct kvs_hit hit;
	uint64_t hash = kvs_map_hash(look->walk.map, view->key, view->key_bytes);
	return kvs_table_find(look->walk.map, hash, view->key, view->key_bytes, &hit) ==
		       KVS_FIND_HIT &&
	       hit.view.seq >= view->seq;
}

static void remember(struct memory_look *look, uint64_t hash, uint64_t seq)
{
	if (look->entries_count == look->entries_capacity) {
		size_t capacity = look->entries_capacity * 2;
		struct verify_expected *grown =
			realloc(look->entries, capacity * sizeof(*look->entries));
		if (grown == NULL) {
			look->no_memory = true;
			return;
		}
		look->entries = grown;
		look->entries_capacity = capacity;
	}
	uint64_t required = seq <= look->job->durable_seq ? VERIFY_REQUIRED : 0;
	look->entries[look->entries_count++] = (struct verify_expected){ hash, seq | required };
}

static void check(struct memory_look *look, const struct kvs_hit *hit, uint64_t hash)
{
	const struct kvs_record_view *view = &hit->view;
	bool large = (view->flags & KVS_RECORD_LARGE) != 0;
	look->bytes += view->record_bytes + (large ? view->value_bytes : 0u);
	if (!kvs_record_crc_ok(view)) {
		(void)doubt(look, view, "the record's checksum is wrong");
		return;
	}
	if (!is_reached(look, view)) {
		(void)doubt(look, view, "a search does not come to its entry");
		look->unsure = true;
	}
	if (hit->kind == KVS_ENTRY_TOMBSTONE) {
		return;
	}
	look->large_values += large;
	if (large && kvs_crc32c(0, hit->value, view->value_bytes) != kvs_record_run(view).crc) {
		(void)doubt(look, view, "the large value's checksum is wrong");
	}
	remember(look, hash, view->seq);
}

static int by_hash(const void *a, const void *b)
{
	const struct verify_expected *x = a;
	const struct verify_expected *y = b;
	return x->hash < y->hash ? -1 : x->hash > y->hash;
}

static void look_at(void *context, uint64_t entry)
{
	struct memory_look *look = context;
	struct kvs_hit hit;
	if (kvs_table_load(look->walk.map, entry, &hit) != KVS_FIND_HIT) {
		if (look->missing == NULL) {
			(void)doubt(look, NULL, "an entry names no record");
		}
		return;
	}
	uint64_t hash = kvs_hash(look->job->hash_seed, hit.view.key, hit.view.key_bytes);
	hash = hash != 0 ? hash : 1;
	if (look->missing == NULL) {
		check(look, &hit, hash);
		return;
	}
	const struct verify_expected wanted = { .hash = hash };
	const struct verify_expected *found =
		bsearch(&wanted, look->missing, look->missing_count, sizeof(wanted), by_hash);
	if (found != NULL && found->seq == hit.view.seq && hit.kind != KVS_ENTRY_TOMBSTONE) {
		doubt(look, &hit.view, "it is durable, and the store has not got it")->in_store =
			true;
	}
}

static bool enough(void *context)
{
	const struct memory_look *look = context;
	return look->bytes >= LOOK_SECTION_BYTES || look->no_memory;
}

bool memory_look_begin(struct memory_look *look, struct job *job)
{
	*look = (struct memory_look){ .walk = job->walk, .job = job, .entries_capacity = 1024 };
	look->walk.entry = look_at;
	look->walk.enough = enough;
	look->walk.context = look;
	look->entries = malloc(look->entries_capacity * sizeof(*look->entries));
	look->doubts = calloc(MEMORY_DOUBTS_MAX, sizeof(*look->doubts));
	return (look->entries != NULL && look->doubts != NULL) || job_fail(job, "out of memory");
}

void memory_look_end(struct memory_look *look)
{
	free(look->entries);
	free(look->doubts);
}

static void enter(const struct memory_look *look, struct verification *v)
{
	for (size_t i = 0; i < look->doubts_count; i++) {
		const struct memory_doubt *one =
			&look->doubts[i < MEMORY_DOUBTS_MAX ? i : MEMORY_DOUBTS_MAX - 1];
		if (i < MEMORY_DOUBTS_MAX) {
			verification_find(v, one->in_store ? "store" : "memory", 0, one->seq,
					  one->key_hex, one->what);
		}
		v->store_damaged += one->in_store;
		v->memory_damaged += !one->in_store;
	}
	v->keys += look->entries_count;
	v->memory_bytes += look->bytes;
	v->large_values += look->large_values;
}

bool memory_look_section(struct memory_look *look, struct verification *v)
{
	uint64_t cursor = look->walk.cursor;
	unsigned again = 0;
	for (unsigned i = 0; i < LOOK_REVOCATIONS_MAX; i++) {
		look->entries_count = look->doubts_count = 0;
		look->bytes = look->large_values = 0;
		look->unsure = false;
		bool good = region_walk_section(&look->walk);
		if (look->no_memory) {
			return job_fail(look->job, "out of memory");
		}
		if (good && (!look->unsure || again++ == LOOK_AGAIN_MAX)) {
			enter(look, v);
			return true;
		}
		look->walk.cursor = cursor;
		look->walk.done = false;
	}
	return job_fail(look->job, "kvd's own reading of the table is revoked again and again: "
				   "give it more --memory");
}
