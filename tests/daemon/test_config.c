// SPDX-License-Identifier: MIT
//
// Options: every way to give one, every way to get it wrong, and the values that follow from
// others. G: a setting that does not fit is an error with its remedy, before anything is started.
#include "daemon/config.h"

#include <limits.h>
#include <unistd.h>

#include "daemon/config_text.h"
#include "tests/daemon/no_memory_for_names.h"
#include "tests/tap/tap.h"

#define MIB (UINT64_C(1) << 20)
#define ARGS(...)                        \
	(const char *[])                 \
	{                                \
		"kvd", __VA_ARGS__, NULL \
	}

static char error[512];

static enum config_action parse(struct config *config, const char **argv)
{
	int argc = 0;
	while (argv[argc]) {
		argc++;
	}
	return config_parse(config, argc, (char **)argv, error, sizeof(error));
}

/// The line is a usage error whose text has `part`.
static void refused(const char **argv, const char *part)
{
	struct config config;
	enum config_action action = parse(&config, argv);
	config_fini(&config);
	if (!ok(action == CONFIG_USAGE_ERROR && strstr(error, part), "refused: %s %s", argv[1],
		argv[2] ? argv[2] : "")) {
		tap_diag("action %d, error '%s', expected '%s'", (int)action, error, part);
	}
}

// ---- a machine that is short of memory ----

static void test_memory(void)
{
	static const char *const options[] = { "--allow-attach", "--allow-write", "--allow-admin",
					       "--quota-exempt" };
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		struct config config;
		short_of_memory = true;
		enum config_action action = parse(&config, ARGS(options[i], "user:root"));
		short_of_memory = false;
		config_fini(&config);
		ok(action == CONFIG_NO_MEMORY && strstr(error, options[i] + 2) &&
			   strstr(error, "out of memory"),
		   "G: no memory for a name is no usage error: %s", error);
	}
}

static void test_units(void)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "4096", 4096 },
		{ "64k", 65536 },
		{ "64KiB", 65536 },
		{ "64kb", 65536 },
		{ "256MiB", 256 * MIB },
		{ "1 g", 1024 * MIB },
		{ "3GB", 3072 * MIB },
		{ "2TiB", 2 * 1024 * 1024 * MIB },
	};
	static const char *const bad[] = { "",
					   "k",
					   "-1",
					   "1.5g",
					   "12x",
					   "1kk",
					   " 1",
					   "+1",
					   "0x10",
					   "1k ",
					   "99999999999999999999",
					   "99999999t" };
	uint64_t value = 0;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		value = 1;
		ok(config_text_size(good[i].text, &value) && value == good[i].bytes, "size %s",
		   good[i].text);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ok(!config_text_size(bad[i], &value), "no size: '%s'", bad[i]);
	}
	ok(config_text_duration("250ms", &value) && value == 250, "duration 250ms");
	ok(config_text_duration("250", &value) && value == 250, "a bare duration is in ms");
	ok(config_text_duration("2s", &value) && value == 2000, "duration 2s");
	ok(config_text_duration("5m", &value) && value == 300000, "duration 5m");
	ok(config_text_duration("1h", &value) && value == 3600000, "duration 1h");
	ok(!config_text_duration("3d", &value), "no duration: 3d");
	ok(config_text_mode("0660", &value) && value == 0660, "mode 0660");
	ok(config_text_mode("600", &value) && value == 0600, "mode 600 is octal too");
	ok(!config_text_mode("0680", &value), "no mode: 0680");
	ok(!config_text_mode("1777", &value), "no mode: 1777");
	ok(config_text_choice("Group", "memory|lazy|group", &value) && value == 2, "choice Group");
	ok(!config_text_choice("gro", "memory|lazy|group", &value), "no choice: a prefix");
	ok(!config_text_choice("", "memory|lazy", &value), "no choice: nothing");
	ok(!config_text_choice("memory|lazy", "memory|lazy", &value), "no choice: two at once");
}

static void test_printing(void)
{
	char text[64];
	config_text_print_size(256 * MIB, text, sizeof(text));
	ok_str(text, "256MiB", "256MiB prints so");
	config_text_print_size(1000, text, sizeof(text));
	ok_str(text, "1000", "1000 bytes print so");
	config_text_print_size(0, text, sizeof(text));
	ok_str(text, "0", "no bytes print as 0");
	config_text_print_duration(90000, text, sizeof(text));
	ok_str(text, "90s", "90 s print so");
	config_text_print_duration(1, text, sizeof(text));
	ok_str(text, "1ms", "1 ms prints so");
	config_text_print_choice("a|bc|d", 1, text, sizeof(text));
	ok_str(text, "bc", "a choice prints by name");
	config_text_print_choice("a|bc|d", 7, text, sizeof(text));
	ok_str(text, "", "a choice beyond the list prints nothing");
	ok_u64(config_text_distance("memory", "memory"), 0, "equal names have distance 0");
	ok_u64(config_text_distance("memry", "memory"), 1, "one letter lost is distance 1");
	ok_u64(config_text_distance("persits", "persist"), 2, "two swapped letters are distance 2");
	ok_u64(config_text_distance("", "abc"), 3, "from nothing it is the length");
}

static void test_defaults(void)
{
	struct config config;
	ok(parse(&config, (const char *[]){ "kvd", NULL }) == CONFIG_RUN, "no options at all");
	ok_str(config.dir, "/var/lib/kvd", "default of dir");
	ok_str(config.socket_path, "/var/lib/kvd/kvd.sock", "socket follows dir");
	ok_str(config.socket_also_path, KVS_SOCKET_PATH_DEFAULT,
	       "a plain kvd is where clients look");
	ok_u64(config.memory_bytes, 256 * MIB, "default of memory");
	ok_u64(config.value_bytes_max, 32 * MIB, "value-max is an eighth of memory");
	ok_u64(config.segment_bytes, 2 * MIB, "segment is 2MiB");
	ok(config.memory_max_bytes >= config.memory_bytes, "memory-max is at least memory");
	ok_u64(config.buffers_bytes_max, 6 * 65 * MIB,
	       "client-buffers-max has room for two users' largest requests");
	ok_u64(config.persist_policy, 1, "policy lazy");
	ok_u64(config.socket_mode, 0660, "socket mode 0660");
	config_fini(&config);
	for (uint64_t memory = KVS_MEMORY_BYTES_MIN; memory <= 128 * MIB; memory += 777777) {
		char text[32];
		(void)snprintf(text, sizeof(text), "%" PRIu64, memory);
		bool good = parse(&config, ARGS("--memory", text)) == CONFIG_RUN &&
			    config.memory_bytes / config.segment_bytes >= 32 &&
			    config.segment_bytes >= KVS_SEGMENT_BYTES_MIN &&
			    (config.segment_bytes == 2 * MIB ||
			     config.memory_bytes / (2 * config.segment_bytes) < 32) &&
			    config.value_bytes_max == memory / 8;
		config_fini(&config);
		if (!good) {
			ok(false, "segments for a memory of %s", text);
			return;
		}
	}
	ok(true, "any small memory has 32 segments, and no more than needed");
}

// What is done when memory is full follows from what is asked for, under either name, and from
// whether there is a store.
static void test_when_full(void)
{
	static const struct {
		const char *persist, *when_full, *policy; // "" = not given
		unsigned is;				  // REFUSED = it is refused
	} cases[] = {
		{ "lazy", "", "", CONFIG_WHEN_FULL_SPILL },
		{ "memory", "", "", CONFIG_WHEN_FULL_REJECT },
		{ "group", "reject", "", CONFIG_WHEN_FULL_REJECT },
		{ "group", "reject", "noeviction", CONFIG_WHEN_FULL_REJECT },
		{ "sync", "", "noeviction", CONFIG_WHEN_FULL_SPILL },
		{ "memory", "", "noeviction", CONFIG_WHEN_FULL_REJECT },
		{ "memory", "spill", "", UINT_MAX },
		{ "lazy", "spill", "", CONFIG_WHEN_FULL_SPILL },
		{ "lazy", "", "allkeys-lru", CONFIG_WHEN_FULL_EVICT },
		{ "memory", "", "volatile-ttl", CONFIG_WHEN_FULL_EVICT },
		{ "memory", "evict", "", CONFIG_WHEN_FULL_EVICT },
		{ "lazy", "evict", "volatile-lru", CONFIG_WHEN_FULL_EVICT },
		{ "lazy", "evict", "noeviction", UINT_MAX },
		{ "lazy", "reject", "allkeys-lru", UINT_MAX },
		{ "lazy", "spill", "volatile-ttl", UINT_MAX },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config config;
		const char *words[8] = { "kvd", "--persist", cases[i].persist };
		size_t count = 3;
		if (*cases[i].when_full) {
			words[count++] = "--when-full";
			words[count++] = cases[i].when_full;
		}
		if (*cases[i].policy) {
			words[count++] = "--maxmemory-policy";
			words[count++] = cases[i].policy;
		}
		bool runs = parse(&config, words) == CONFIG_RUN;
		unsigned is = runs ? config.when_full : UINT_MAX;
		bool evicts = is == CONFIG_WHEN_FULL_EVICT;
		ok(is == cases[i].is &&
			   (!runs || evicts == (config.maxmemory_policy != CONFIG_POLICY_NONE)),
		   "--persist %s, when-full '%s', maxmemory-policy '%s': %u", cases[i].persist,
		   cases[i].when_full, cases[i].policy, is);
		config_fini(&config);
	}
}

static void test_command_line(void)
{
	struct config config;
	ok(parse(&config, ARGS("--dir=/x", "--memory", "1g", "--persist=sync", "--value-max=100MiB",
			       "--socket-mode", "600", "--revoke", "2s", "--maxclients", "7",
			       "--memory-max=2g", "--segment", "64KiB")) == CONFIG_RUN,
	   "both spellings of options");
	ok_str(config.dir, "/x", "dir");
	ok_u64(config.memory_bytes, 1024 * MIB, "memory");
	ok_u64(config.memory_max_bytes, 2048 * MIB, "memory-max");
	ok_u64(config.buffers_bytes_max, 6 * 101 * MIB, "client-buffers-max follows value-max");
	ok_u64(config.persist_policy, 3, "persist");
	ok_u64(config.value_bytes_max, 100 * MIB, "value-max");
	ok_u64(config.socket_mode, 0600, "socket-mode");
	ok_u64(config.revoke_ms, 2000, "revoke");
	ok_u64(config.clients_max, 7, "maxclients");
	ok_u64(config.segment_bytes, 65536, "segment");
	config_fini(&config);
	ok(parse(&config, ARGS("--memory", "1g", "--memory", "2g")) == CONFIG_RUN &&
		   config.memory_bytes == 2048 * MIB,
	   "the last of two wins");
	config_fini(&config);
	ok(parse(&config, ARGS("--value-max", "512MiB")) == CONFIG_RUN &&
		   config.value_bytes_max == 128 * MIB,
	   "value-max alone is lowered to what fits");
	config_fini(&config);
	ok(parse(&config, ARGS("--help")) == CONFIG_HELP, "--help");
	config_fini(&config);
	ok(parse(&config, ARGS("--dir", "/x", "--version")) == CONFIG_VERSION, "--version");
	config_fini(&config);
}

static void test_refusals(void)
{
	char path[200];
	memset(path, 'x', sizeof(path) - 1);
	memcpy(path, "--", 2);
	path[sizeof(path) - 1] = '\0';
	refused(ARGS("--memroy", "1g"), "did you mean 'memory'");
	refused(ARGS("--colour", "red"), "unknown option 'colour', see kvd --help");
	refused(ARGS(path), "unknown option");
	refused(ARGS("start"), "unexpected argument 'start'");
	refused(ARGS("-d", "/x"), "unexpected argument '-d'");
	refused(ARGS("--memory"), "--memory needs a value");
	refused(ARGS("--dir="), "dir needs a value");
	refused(ARGS("--memory", "lots"), "memory: 'lots' is not a size");
	refused(ARGS("--memory", "1k"), "out of range, give 2MiB to 512GiB");
	refused(ARGS("--revoke", "0"), "out of range, give 1ms to 1h");
	refused(ARGS("--persist", "often"), "none of memory|lazy|group|sync");
	refused(ARGS("--maxclients", "12k"), "is not a whole number");
	refused(ARGS("--socket-mode", "999"), "octal");
	refused(ARGS("--socket", path), "the path has 199 bytes, sockets allow 107");
	refused(ARGS("--dir", path), "the path has 208 bytes, sockets allow 107");
	refused(ARGS("--value-max", "200MiB", "--memory", "256MiB"),
		"value-max: 200MiB exceeds half of memory (256MiB)");
	refused(ARGS("--client-buffers-max", "100MiB"),
		"client-buffers-max: 100MiB is too little for one request: give at least 195MiB");
	refused(ARGS("--memory", "1g", "--memory-max", "512m"),
		"memory-max: 512MiB is less than memory (1GiB)");
	refused(ARGS("--segment", "96KiB"), "segment: 96KiB is not a power of two");
	refused(ARGS("--segment", "4096"), "power of two from 64KiB to 64MiB");
	refused(ARGS("--segment", "64MiB"), "memory (256MiB) holds fewer than 16 of 64MiB");
	refused(ARGS("--revoke", "10ms"), "revoke-min: 50ms is longer than revoke (10ms)");
}

static void file_write(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	if (!file || fputs(text, file) < 0 || fclose(file)) {
		printf("Bail out! cannot write %s\n", path);
		exit(99);
	}
}

static void file_refused(const char *path, const char *text, const char *part)
{
	file_write(path, text);
	refused(ARGS("--config", path), part);
}

static void test_file(void)
{
	const char *base = getenv("TMPDIR");
	char path[512];
	(void)snprintf(path, sizeof(path), "%s/kvd-test-config-XXXXXX", base ? base : "/tmp");
	char text[600];
	struct config config;
	int fd = mkstemp(path);
	if (fd < 0 || close(fd)) {
		printf("Bail out! mkstemp\n");
		exit(99);
	}
	file_write(path, "# a comment\n\n[kvd]\nmemory = 1GiB ; why\n  persist=group\n"
			 "dir = /srv/kv\nrevoke = 9s\n");
	ok(parse(&config, ARGS("--config", path, "--revoke", "7s")) == CONFIG_RUN, "a good file");
	ok_u64(config.memory_bytes, 1024 * MIB, "file: memory, with a comment behind it");
	ok_u64(config.persist_policy, 2, "file: persist, indented");
	ok_str(config.socket_path, "/srv/kv/kvd.sock", "file: dir, and the socket follows");
	ok_str(config.socket_also_path, "", "nowhere else");
	ok_u64(config.revoke_ms, 7000, "the command line wins over the file");
	config_fini(&config);
	ok(parse(&config, ARGS("--revoke", "7s", "--config", path)) == CONFIG_RUN &&
		   config.revoke_ms == 7000,
	   "wherever --config stands");
	config_fini(&config);
	file_refused(path, "memory = 1g\n\nmemroy = 2g\n",
		     ":3: unknown option 'memroy', did you mean");
	file_refused(path, "\n\nmemory = x\nrubbish\n", ":3: memory: 'x' is not a size");
	file_refused(path, "memory = 1g\nrubbish\nfoo = 1\n", ":2: not of the form `name = value`");
	file_refused(path, "[cluster]\nmemory = 1g\n", ":2: section [cluster]");
	file_refused(path, "config = /etc/other\n", ":1: config stands on the command line only");
	file_refused(path, "value-max = 200m\nmemory = 256m\n",
		     "value-max: 200MiB exceeds half of memory (256MiB)");
	file_refused(path, "dir =\n", ":1: dir needs a value");
	file_refused(path, "when-full = reject\n\nmaxmemory-policy = volatile-lru\n",
		     ":3: when-full reject and maxmemory-policy volatile-lru contradict");
	file_refused(path, "maxmemory-policy = noeviction\nwhen-full = evict\n",
		     ":2: when-full evict and maxmemory-policy noeviction contradict");
	ok(parse(&config, ARGS("--config", path, "--when-full", "spill")) == CONFIG_RUN &&
		   config.when_full == CONFIG_WHEN_FULL_SPILL &&
		   config.maxmemory_policy == CONFIG_POLICY_NONE,
	   "of two that contradict each other the command line's counts");
	config_fini(&config);
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	file_refused(path, text, ":1: line is longer than");
	(void)unlink(path);
	refused(ARGS("--config", path), "cannot open");
	refused(ARGS("--config", "/"), "is it a file?");
}

static void test_values(void)
{
	struct config config;
	char text[64];
	size_t found = 0;
	ok(parse(&config, ARGS("--persist", "group", "--lazy-interval", "5s")) == CONFIG_RUN,
	   "parsed");
	for (size_t i = 0; i < config_count(); i++) {
		config_value(&config, i, text, sizeof(text));
		found += strcmp(config_name(i), "persist") == 0 && strcmp(text, "group") == 0;
		found += strcmp(config_name(i), "lazy-interval") == 0 && strcmp(text, "5000") == 0;
		found += strcmp(config_name(i), "memory") == 0 && strcmp(text, "268435456") == 0;
		found += strcmp(config_name(i), "socket-mode") == 0 && strcmp(text, "0660") == 0;
		found += strcmp(config_name(i), "dir") == 0 && strcmp(text, "/var/lib/kvd") == 0;
	}
	ok_u64(found, 5, "config_value prints what CONFIG GET shows");
	ok(config_name(config_count()) == NULL, "there is no name beyond the last");
	config_fini(&config);
}

static void test_flag(void)
{
	static const struct {
		const char *argument;
		unsigned supervise;
	} good[] = { { "--supervise", 1 }, { "--supervise=yes", 1 }, { "--supervise=no", 0 } };
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct config config;
		ok(parse(&config, ARGS(good[i].argument, "--dir", "d")) == CONFIG_RUN &&
			   config.supervise == good[i].supervise && strcmp(config.dir, "d") == 0,
		   "a flag needs no value: %s", good[i].argument);
		config_fini(&config);
	}
	refused(ARGS("--supervise", "yes"), "unexpected argument 'yes'");
	refused(ARGS("--supervise=1"), "is none of no|yes");
}

/// What is left of a command line without --supervise.
static void test_without(void)
{
	static const struct {
		const char *given[8];
		const char *left[8];
		const char *name;
	} cases[] = {
		{ { "kvd", "--supervise" }, { "kvd" } },
		{ { "kvd" }, { "kvd" } },
		{ { "kvd", "--dir", "d", "--supervise=yes", "--memory=16m", "--supervise" },
		  { "kvd", "--dir", "d", "--memory=16m" } },
		{ { "kvd", "--dir", "--supervise", "--supervise", "--socket", "s" },
		  { "kvd", "--dir", "--supervise", "--socket", "s" } },
		{ { "kvd", "--dir=--supervise", "--supervise", "--memory", "16m" },
		  { "kvd", "--dir=--supervise", "--memory", "16m" } },
		{ { "kvd", "--supervise", "--other" }, { "kvd", "--supervise" }, "other" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *argv[8];
		memcpy(argv, cases[i].given, sizeof(argv));
		int argc = 0;
		while (argv[argc] != NULL) {
			argc++;
		}
		const char *name = cases[i].name != NULL ? cases[i].name : "supervise";
		int left = config_arguments_without(argc, argv, name);
		bool same = argv[left] == NULL;
		for (int at = 0; at <= left && same; at++) {
			same = cases[i].left[at] == NULL
				       ? argv[at] == NULL
				       : argv[at] != NULL &&
						 strcmp(argv[at], cases[i].left[at]) == 0;
		}
		ok(same, "the child's arguments, case %zu", i);
	}
}

int main(void)
{
	test_memory();
	test_units();
	test_printing();
	test_defaults();
	test_when_full();
	test_command_line();
	test_flag();
	test_without();
	test_refusals();
	test_file();
	test_values();
	return tap_done();
}
