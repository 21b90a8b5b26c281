// SPDX-License-Identifier: MIT
//
// Escaping for lines and terminals, tables, and files that appear whole or not at all.
#include <sys/stat.h>
#include <unistd.h>

#include "tests/tap/tap.h"
#include "tools/output.h"

static char memory_text[4096];

static FILE *memory_open(void)
{
	memset(memory_text, 0, sizeof memory_text);
	return fmemopen(memory_text, sizeof memory_text, "w");
}

static void test_escaped(void)
{
	static const struct {
		const char *data;
		size_t bytes;
		const char *text;
	} cases[] = {
		{ "plain", 5, "plain" },
		{ "a\tb\nc\r", 6, "a\\tb\\nc\\r" },
		{ "a\\x00", 5, "a\\\\x00" },
		{ "a\0b", 3, "a\\x00b" },
		{ "\x1b[2J", 4, "\\x1b[2J" },
		{ "\x7f", 1, "\\x7f" },
		{ "gr\xc3\xbc\xc3\x9f", 6, "gr\xc3\xbc\xc3\x9f" },
		{ "\xc3", 1, "\\xc3" },
		{ "\xff\xfe", 2, "\\xff\\xfe" },
		{ "\xc2\x9b"
		  "2J",
		  4, "\\xc2\\x9b2J" },
		{ "\xc2\xa0", 2, "\xc2\xa0" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		FILE *out = memory_open();
		output_escaped(out, cases[i].data, cases[i].bytes);
		fclose(out);
		ok_str(memory_text, cases[i].text, "escaped case %zu", i);
	}
}

static void test_table(bool aligned, const char *expected, const char *name)
{
	static const char *const rows[][3] = { { "id", "name", "note" },
					       { "1",
						 "gr\xc3\xbc"
						 "n",
						 "a\tb" },
					       { "1000", "x", "" } };
	struct output_table table;
	FILE *out = memory_open();
	bool good = true;
	output_table_begin(&table, out, aligned, 3);
	for (size_t i = 0; i < 3; i++) {
		good = output_table_row(&table, rows[i]) && good;
	}
	output_table_end(&table);
	fclose(out);
	ok(good, "%s: rows are taken", name);
	ok_str(memory_text, expected, "%s", name);
}

static const char *content(const char *path)
{
	FILE *file = fopen(path, "r");
	memset(memory_text, 0, sizeof memory_text);
	if (!file) {
		return "(none)";
	}
	size_t got = fread(memory_text, 1, sizeof memory_text - 1, file);
	fclose(file);
	memory_text[got] = '\0';
	return memory_text;
}

static void test_file(const char *folder)
{
	char path[300];
	struct output_file file;
	snprintf(path, sizeof path, "%s/out", folder);
	ok(output_file_open(&file, path), "a file opens");
	fputs("first", file.stream);
	ok_str(content(path), "(none)", "nothing is there before it is committed");
	ok(output_file_commit(&file), "it is committed");
	ok_str(content(path), "first", "then all of it is there");
	ok(output_file_open(&file, path), "it opens again");
	fputs("second", file.stream);
	output_file_abort(&file);
	ok_str(content(path), "first", "abort leaves the older file");
	ok(unlink(path) == 0, "the file is removed");
	ok(rmdir(folder) == 0, "and nothing else was left in the folder");
	ok(!output_file_open(&file, path), "no folder, no file");
	ok(output_file_open(&file, "/dev/full"), "a device is written to, not replaced");
	fputs("x", file.stream);
	ok(!output_file_commit(&file), "a full device is an error");
	struct stat status;
	ok(stat("/dev/full", &status) == 0 && S_ISCHR(status.st_mode), "and is still a device");
}

int main(void)
{
	char folder[256];
	const char *base = getenv("TMPDIR");
	test_escaped();
	test_table(true, "id    name  note\n1     gr\xc3\xbcn  a\\tb\n1000  x     \n", "aligned");
	test_table(false, "id\tname\tnote\n1\tgr\xc3\xbcn\ta\\tb\n1000\tx\t\n", "in a pipe");
	snprintf(folder, sizeof folder, "%s/kvd-output-XXXXXX", base ? base : "/tmp");
	if (!ok(mkdtemp(folder) != NULL, "a folder for the test")) {
		return tap_done();
	}
	test_file(folder);
	return tap_done();
}
