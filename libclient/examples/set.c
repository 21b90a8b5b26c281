/* SPDX-License-Identifier: MIT */
/*
 * Adds a line to a value that others may be changing too: read it with its version, write it back
 * only if that is still the version, else start over.
 *
 *     cc set.c $(pkg-config --cflags --libs kvclient) -o set && ./set greeting "hello again"
 */
#include <kvclient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int add_line(kvc *client, kvc_reader *reader, const char *key, const char *line)
{
	void *old = NULL;
	struct kvc_meta meta = { 0 };
	struct kvc_set_options options = { .struct_bytes = sizeof(options),
					   .flags = KVC_SET_IF_VERSION };
	int status = kvc_get_alloc(reader, key, strlen(key), &old, &meta);
	if (status != KVC_OK && status != KVC_NOT_FOUND) {
		return status;
	}
	options.version = meta.version; /* 0 if it was not there: then only if it still is not */
	size_t bytes = meta.value_bytes + strlen(line) + 1;
	char *text = malloc(bytes + 1);
	if (!text) {
		free(old);
		return KVC_NO_MEMORY;
	}
	(void)snprintf(text, bytes + 1, "%s%s\n", old ? (char *)old : "", line);
	status = kvc_set(client, key, strlen(key), text, bytes, &options, NULL);
	free(text);
	free(old);
	return status;
}

int main(int argc, char **argv)
{
	kvc *client = NULL;
	kvc_reader *reader = NULL;
	if (argc != 3) {
		fprintf(stderr, "usage: set KEY LINE\n");
		return 2;
	}
	int status = kvc_open(&client, NULL);
	if (status == KVC_OK) {
		status = kvc_reader_open(client, &reader);
	}
	if (status == KVC_OK) {
		do {
			status = add_line(client, reader, argv[1], argv[2]);
		} while (status == KVC_NOT_APPLIED); /* somebody else was faster */
	}
	if (status == KVC_OK) {
		status = kvc_sync(client); /* return only when it would survive a power cut */
	}
	if (status != KVC_OK) {
		fprintf(stderr, "set: %s\n", kvc_strerror(status));
	}
	kvc_close(client);
	return status == KVC_OK ? 0 : 1;
}
