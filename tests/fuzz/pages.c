// SPDX-License-Identifier: MIT
//
// Fuzz target for the check of an LMDB file's raw pages: any bytes must end in an answer. The input
// is a file with pages of 512 bytes or more; only what is checked before LMDB sees it runs here.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/storage/pages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char why[200] = "";
	void *file = malloc(bytes > 0 ? bytes : 1);
	if (file == NULL) {
		return 0;
	}
	memcpy(file, data, bytes);
	int all = store_pages_check_image(file, bytes, false, why, sizeof(why));
	if (all < 0 && why[0] == '\0') {
		abort(); // refused without a reason
	}
	why[0] = '\0';
	int trees = store_pages_check_image(file, bytes, true, why, sizeof(why));
	if ((trees < 0 && why[0] == '\0') || (trees != all && !(trees == 0 && all < 0))) {
		abort(); // the same, but for what is in runs of pages
	}
	free(file);
	return 0;
}
