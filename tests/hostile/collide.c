// SPDX-License-Identifier: MIT
//
// What a reader can work out who wants to hurt: keys that all belong into one bucket, by the hash
// key in the region's header. Arguments: a descriptor of the region, and how many; one key a line.
#include <stdio.h>
#include <stdlib.h>

#include "shm/map.h"
#include "shm/table.h"

#define COLLIDE_BUCKETS 4096u // so many buckets of a larger table have them all
#define COLLIDE_TRIES (1u << 28)

int main(int argc, char **argv)
{
	struct kvs_map map;
	long fd = argc == 3 ? strtol(argv[1], NULL, 10) : -1;
	if (fd < 0 || kvs_map_open(&map, (int)fd) != KVS_MAP_OK) {
		return 2;
	}
	long wanted = strtol(argv[2], NULL, 10);
	for (unsigned i = 0; i < COLLIDE_TRIES && wanted > 0; i++) {
		char key[64];
		int bytes = snprintf(key, sizeof(key), "attacker:hash:%u", i);
		if (kvs_map_hash(&map, key, (size_t)bytes) % COLLIDE_BUCKETS == 0) {
			printf("%s\n", key);
			wanted--;
		}
	}
	return 0;
}
