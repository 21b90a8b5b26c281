// SPDX-License-Identifier: MIT
//
// What a caller compiled against another version of the header may pass, and whether the header,
// the table of results and the symbol list agree.
#include <errno.h>
#include <stddef.h>

#include "libclient/internal.h"
#include "shm/limits.h"
#include "tests/tap/tap.h"

static void test_statuses(void)
{
#define X(name, number, sentence)                 \
	ok_int(KVC_##name, number, "KVC_" #name); \
	ok_str(kvc_strerror(KVC_##name), sentence, "its sentence");
#include "shm/status.tbl.h"
#undef X
	ok_str(kvc_strerror(4711), "unknown status", "an unknown one");
	ok_str(kvc_version(), KVD_VERSION, "version");
}

// The options as an older header had them, and as a newer one may have them.
struct options_old {
	size_t struct_bytes;
	const char *socket_path;
};

struct options_new {
	struct kvc_options known;
	uint64_t later;
};

static int open_options(const void *options)
{
	kvc *client;
	int status = kvc_open(&client, options);
	(void)kvc_close(client);
	return status;
}

static void test_sizes(void)
{
	char path[200];
	struct kvc_options options;
	kvc_options_init(&options);
	ok_u64(options.struct_bytes, sizeof(options), "init sets the size");
	ok(!options.socket_path && options.flags == 0, "and nothing else");
	options.socket_path = "/nowhere/kvd.sock";
	ok_int(open_options(&options), KVC_UNREACHABLE, "no such socket");
	ok_int(errno, ENOENT, "errno says which way");
	struct options_old old = { .struct_bytes = sizeof(old),
				   .socket_path = "/nowhere/kvd.sock" };
	ok_int(open_options(&old), KVC_UNREACHABLE, "an older caller's options");
	struct options_new new = { .known = options };
	new.known.struct_bytes = sizeof(new);
	ok_int(open_options(&new), KVC_UNREACHABLE, "a newer caller's, nothing new set");
	new.later = 1;
	ok_int(open_options(&new), KVC_INVALID, "a newer caller's, something new set");
	options.struct_bytes = 0;
	ok_int(open_options(&options), KVC_INVALID, "a size of 0");
	options.struct_bytes = SIZE_MAX;
	ok_int(open_options(&options), KVC_INVALID, "a size that cannot be");
	kvc_options_init(&options);
	options.flags = 1u << 30;
	ok_int(open_options(&options), KVC_INVALID, "an unknown flag");
	options.flags = KVC_OPEN_NO_CONNECT;
	memset(path, 'p', sizeof(path));
	path[KVS_SOCKET_PATH_BYTES_MAX] = '\0';
	options.socket_path = path;
	ok_int(open_options(&options), KVC_OK, "the longest path");
	path[KVS_SOCKET_PATH_BYTES_MAX] = 'p';
	path[KVS_SOCKET_PATH_BYTES_MAX + 1] = '\0';
	ok_int(open_options(&options), KVC_INVALID, "a longer one");
	ok_int(errno, ENAMETOOLONG, "errno says why");
	ok_int(kvc_open(NULL, NULL), KVC_INVALID, "nowhere to put it");
	ok_int(kvc_close(NULL), KVC_OK, "close nothing");
	ok_int(kvc_reader_close(NULL), KVC_OK, "close no reader");
	kvc_options_init(NULL);
	struct kvc_set_options set = { .struct_bytes = 0 };
	kvc *client;
	options.socket_path = "/nowhere/kvd.sock";
	(void)kvc_open(&client, &options);
	ok_int(kvc_set(client, "k", 1, "v", 1, &set, NULL), KVC_INVALID, "set options of size 0");
	set.struct_bytes = sizeof(set);
	ok_int(kvc_set(client, "k", 1, "v", 1, &set, NULL), KVC_UNREACHABLE, "of the right size");
	ok_int(kvc_set(NULL, "k", 1, "v", 1, NULL, NULL), KVC_INVALID, "no client");
	ok_int(kvc_sync(NULL), KVC_INVALID, "no client to sync");
	(void)kvc_close(client);
}

static void test_environment(void)
{
	kvc *client;
	struct kvc_options options;
	kvc_options_init(&options);
	options.flags = KVC_OPEN_NO_CONNECT;
	(void)setenv("KVD_SOCKET", "/some/where", 1);
	(void)kvc_open(&client, &options);
	ok_str(client->socket_path, "/some/where", "KVD_SOCKET");
	(void)kvc_close(client);
	(void)unsetenv("KVD_SOCKET");
	(void)kvc_open(&client, &options);
	ok_str(client->socket_path, "/run/kvd/kvd.sock", "the default");
	(void)kvc_close(client);
}

// True if the file has `word` with no letter of a name on either side.
static bool has_word(const char *text, const char *word)
{
	size_t bytes = strlen(word);
	for (const char *at = strstr(text, word); at; at = strstr(at + 1, word)) {
		char after = at[bytes];
		if (after == ';' || after == '(') {
			return true;
		}
	}
	return false;
}

static char *read_file(const char *folder, const char *name)
{
	char path[4096];
	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	char *text = calloc(1, 1 << 20);
	FILE *file = fopen(path, "r");
	if (!file || !text || fread(text, 1, (1 << 20) - 1, file) == 0) {
		printf("Bail out! cannot read %s\n", path);
		exit(99);
	}
	(void)fclose(file);
	return text;
}

// Each `kvc_name(` behind KVC_API in the header stands in the map, and the other way round.
static void test_symbols(const char *folder)
{
	char *header = read_file(folder, "kvclient.h");
	char *map = read_file(folder, "kvclient.map");
	char *manual = read_file(folder, "kvclient.3");
	unsigned declared = 0, missing = 0, undocumented = 0, listed = 0, stray = 0;
	for (const char *at = strstr(header, "KVC_API "); at; at = strstr(at + 1, "KVC_API ")) {
		char name[64] = "";
		const char *from = strstr(at, "kvc_");
		const char *end = from ? strchr(from, '(') : NULL;
		while (end && from && strcspn(from, " (*") != (size_t)(end - from)) {
			from = strstr(from + 1, "kvc_"); // the return type came first
		}
		if (!from || !end || at[8] == '_') {
			continue;
		}
		(void)snprintf(name, sizeof(name), "%.*s", (int)(end - from), from);
		declared++;
		if (!has_word(map, name)) {
			missing++;
			tap_diag("not in kvclient.map: %s", name);
		}
		if (!strstr(manual, name)) {
			undocumented++;
			tap_diag("not in kvclient.3: %s", name);
		}
	}
	for (char *at = strstr(map, "\tkvc_"); at; at = strstr(at + 1, "\tkvc_")) {
		char name[64];
		(void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(at + 1, ";"), at + 1);
		listed++;
		if (!has_word(header, name)) {
			stray++;
			tap_diag("not in kvclient.h: %s", name);
		}
	}
	ok(declared > 30, "the header declares functions (%u)", declared);
	ok_u64(missing, 0, "all of them are exported");
	ok_u64(undocumented, 0, "all of them are in the manual");
	ok_u64(listed, declared, "as many are exported as declared");
	ok_u64(stray, 0, "nothing else is exported");
	free(header);
	free(map);
	free(manual);
}

int main(int argc, char **argv)
{
	test_statuses();
	test_sizes();
	test_environment();
	test_symbols(argc > 1 ? argv[1] : "libclient");
	return tap_done();
}
