// SPDX-License-Identifier: MIT
//
// shm/counters.c: every row of the table has a name of its own, a help line and a word in the first
// page.
#include "shm/counters.h"

#include "tests/tap/tap.h"

int main(void)
{
	unsigned nameless = 0, doubled = 0;
	for (unsigned i = 0; i < KVS_COUNTERS_COUNT; i++) {
		nameless += kvs_counter_infos[i].name[0] == '\0' ||
			    kvs_counter_infos[i].help[0] == '\0';
		for (unsigned j = 0; j < i; j++) {
			doubled +=
				strcmp(kvs_counter_infos[i].name, kvs_counter_infos[j].name) == 0;
		}
	}
	ok_u64(nameless, 0, "every counter has name and help");
	ok_u64(doubled, 0, "no name twice");
	ok_str(kvs_counter_infos[KVS_COUNTER_segments_free].name, "segments_free",
	       "enum and table agree");
	static uint64_t page[KVS_PAGE_BYTES / 8];
	kvs_count(kvs_counter_word(page, KVS_COUNTER_keys), 3);
	kvs_count(kvs_counter_word(page, KVS_COUNTER_keys), 4);
	ok_u64(page[KVS_COUNTERS_OFFSET / 8 + KVS_COUNTER_keys], 7,
	       "a counter counts in its own word");
	uint64_t *last = kvs_counter_word(page, KVS_COUNTERS_COUNT - 1);
	ok((unsigned char *)(last + 1) <= (unsigned char *)page + KVS_PAGE_BYTES,
	   "the last one fits");
	return tap_done();
}
