// SPDX-License-Identifier: MIT
//
// The layout below is that of LMDB's data file, version 1, as LMDB 0.9 writes it on a 64-bit
// little-endian machine; it has been frozen for years. Recursion is bounded by LMDB's own limit on
// the depth of a tree, and every page may be reached once only, so that any bytes end the walk.
#include "daemon/storage/pages.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define META_MAGIC 0xbeefc0deu
#define META_VERSION 1u
#define DEPTH_MAX 32u
#define PAGE_BYTES_MAX 32768u // LMDB's own bound
#define KEY_BYTES_MAX 511u
#define PAGE_NONE UINT64_MAX
#define FIRST_PAGE 2u // behind the two meta pages

enum page_flags { PAGE_BRANCH = 1, PAGE_LEAF = 2, PAGE_OVERFLOW = 4, PAGE_META = 8 };
enum node_flags { NODE_BIG = 1, NODE_TREE = 2 };

struct page_header {
	uint64_t number;
	uint16_t pad;
	uint16_t flags;
	uint16_t lower; // end of the node offsets; of an overflow run, with `upper`: its pages
	uint16_t upper; // start of the nodes
};

struct tree {
	uint32_t pad; // of the first tree of a meta page: page size
	uint16_t flags;
	uint16_t depth;
	uint64_t branch_pages;
	uint64_t leaf_pages;
	uint64_t overflow_pages;
	uint64_t entries;
	uint64_t root;
};

struct meta_page {
	struct page_header page;
	uint32_t magic;
	uint32_t version;
	uint64_t address;
	uint64_t map_bytes;
	struct tree trees[2]; // free pages, main
	uint64_t last_page;
	uint64_t transaction;
};

struct node {
	uint16_t
		low; // leaf: data bytes, low and high half; branch: page number, 48 bits with flags
	uint16_t high;
	uint16_t flags;
	uint16_t key_bytes;
};

struct check {
	const unsigned char *file;
	uint64_t pages;	    // in the file
	uint64_t last_page; // highest that the snapshot knows
	uint32_t page_bytes;
	unsigned char *used; // one bit a page: in use, or free
	struct tree found;   // counts of the tree being walked
	unsigned nesting;    // of trees in trees
	bool trees_only;     // runs of pages are counted and not read
	char *why;
	size_t why_bytes;
};

static int wrong(struct check *check, uint64_t page, const char *what)
{
	(void)snprintf(check->why, check->why_bytes, "page %llu: %s", (unsigned long long)page,
		       what);
	return -1;
}

// Marks pages as accounted for; false if one of them was already.
static bool claim(struct check *check, uint64_t page, uint64_t count)
{
	for (uint64_t i = page; i < page + count; i++) {
		unsigned char bit = (unsigned char)(1u << (i % 8));
		if (check->used[i / 8] & bit) {
			return false;
		}
		check->used[i / 8] |= bit;
	}
	return true;
}

// A page in use, or the end of its run, is not there. The commonest reason has a name: something
// (a copy, a restored backup, a repaired file system) kept only the file's beginning.
static int outside(struct check *check, uint64_t page, uint64_t count)
{
	if (page < FIRST_PAGE || page > check->last_page ||
	    count > check->last_page - page + 1) {
		return wrong(check, page, "is outside the file");
	}
	(void)snprintf(check->why, check->why_bytes,
		       "data.mdb is cut short: it ends after %llu of %llu pages",
		       (unsigned long long)check->pages, (unsigned long long)check->last_page + 1);
	return -1;
}

static int take_page(struct check *check, uint64_t page, uint64_t count)
{
	if (page < FIRST_PAGE || page > check->last_page || page >= check->pages ||
	    count > check->pages - page || count > check->last_page - page + 1) {
		return outside(check, page, count);
	}
	return claim(check, page, count) ? 0 : wrong(check, page, "is used twice");
}

static int check_tree(struct check *check, const struct tree *tree, bool free_pages);

static int check_free_list(struct check *check, uint64_t page, const unsigned char *data,
			   uint64_t bytes)
{
	uint64_t count;
	if (bytes < sizeof(count)) {
		return wrong(check, page, "a list of free pages is cut short");
	}
	memcpy(&count, data, sizeof(count));
	if (count > bytes / sizeof(count) - 1) {
		return wrong(check, page, "a list of free pages is longer than its place");
	}
	uint64_t before = UINT64_MAX;
	for (uint64_t i = 1; i <= count; i++) {
		uint64_t freed;
		memcpy(&freed, data + i * sizeof(freed), sizeof(freed));
		if (freed >= before || freed < FIRST_PAGE || freed > check->last_page) {
			return wrong(check, page, "a list of free pages is out of order");
		}
		// Pages that were freed before they were ever written may lie beyond the file's
		// end.
		if (!claim(check, freed, 1)) {
			return wrong(check, freed, "is free and in use");
		}
		before = freed;
	}
	return 0;
}

static int check_leaf_node(struct check *check, uint64_t page, const struct node *node,
			   const unsigned char *at, uint64_t limit, bool free_pages)
{
	uint64_t data_bytes = node->low | (uint64_t)node->high << 16;
	const unsigned char *data = at + sizeof(*node) + node->key_bytes;
	uint64_t inline_bytes = node->flags & NODE_BIG ? sizeof(uint64_t) : data_bytes;
	if (node->key_bytes == 0 || node->key_bytes > KEY_BYTES_MAX ||
	    (node->flags & ~(NODE_BIG | NODE_TREE)) != 0 ||
	    sizeof(*node) + node->key_bytes + inline_bytes > limit) {
		return wrong(check, page, "a node in it is malformed");
	}
	if (node->flags & NODE_BIG) {
		uint64_t run;
		memcpy(&run, data, sizeof(run));
		uint64_t count =
			(data_bytes + sizeof(struct page_header) - 1) / check->page_bytes + 1;
		if (take_page(check, run, count) != 0) {
			return -1;
		}
		struct page_header header = { .number = run, .flags = PAGE_OVERFLOW };
		bool looked_at = !check->trees_only || free_pages;
		if (looked_at) {
			memcpy(&header, check->file + run * check->page_bytes, sizeof(header));
		}
		if (header.number != run || header.flags != PAGE_OVERFLOW ||
		    (looked_at && (header.lower | (uint64_t)header.upper << 16) != count)) {
			return wrong(check, run, "is not the run of pages it should be");
		}
		check->found.overflow_pages += count;
		data = check->file + run * check->page_bytes + sizeof(header);
	}
	if (free_pages) {
		return check_free_list(check, page, data, data_bytes);
	}
	if (node->flags & NODE_TREE) {
		struct tree tree;
		if (node->flags & NODE_BIG || data_bytes != sizeof(tree) || check->nesting > 0) {
			return wrong(check, page, "a tree's root record is malformed");
		}
		memcpy(&tree, data, sizeof(tree));
		struct tree outer = check->found;
		check->nesting++;
		int result = check_tree(check, &tree, false);
		check->nesting--;
		check->found = outer;
		return result;
	}
	return 0;
}

// Checks a page's header and the bounds of its nodes. Returns their number, 0 if something is
// wrong.
static uint32_t page_nodes(struct check *check, uint64_t page, const struct page_header *header,
			   unsigned flags)
{
	uint32_t bytes = check->page_bytes;
	if (header->number != page || header->flags != flags || header->lower > header->upper ||
	    header->upper > bytes || header->lower % 2 != 0 || header->upper % 2 != 0 ||
	    header->lower < sizeof(*header) + 2) {
		(void)wrong(check, page, "its header is malformed");
		return 0;
	}
	return (header->lower - (uint32_t)sizeof(*header)) / 2;
}

static int check_page(struct check *check, uint64_t page, unsigned depth, bool free_pages)
{
	if (take_page(check, page, 1) != 0) {
		return -1;
	}
	const unsigned char *bytes = check->file + page * check->page_bytes;
	struct page_header header;
	memcpy(&header, bytes, sizeof(header));
	uint32_t count = page_nodes(check, page, &header, depth > 1 ? PAGE_BRANCH : PAGE_LEAF);
	if (count == 0) {
		return -1;
	}
	uint64_t node_bytes = 0;
	for (uint32_t i = 0; i < count; i++) {
		uint16_t offset;
		memcpy(&offset, bytes + sizeof(header) + i * sizeof(offset), sizeof(offset));
		struct node node;
		if (offset < header.upper || offset % 2 != 0 ||
		    offset + sizeof(node) > check->page_bytes) {
			return wrong(check, page, "a node lies outside of it");
		}
		memcpy(&node, bytes + offset, sizeof(node));
		uint64_t limit = check->page_bytes - offset;
		int result;
		if (depth > 1) {
			uint64_t child =
				node.low | (uint64_t)node.high << 16 | (uint64_t)node.flags << 32;
			result = sizeof(node) + node.key_bytes > limit
					 ? wrong(check, page, "a node in it is malformed")
					 : check_page(check, child, depth - 1, free_pages);
			node_bytes += (sizeof(node) + node.key_bytes + 1) & ~UINT64_C(1);
		} else {
			uint64_t data =
				node.flags & NODE_BIG ? 8 : (node.low | (uint64_t)node.high << 16);
			result = check_leaf_node(check, page, &node, bytes + offset, limit,
						 free_pages);
			node_bytes += (sizeof(node) + node.key_bytes + data + 1) & ~UINT64_C(1);
		}
		if (result != 0) {
			return result;
		}
	}
	// Nodes fill the page from `upper` to its end without gaps; LMDB moves them believing that.
	if (node_bytes != check->page_bytes - header.upper) {
		return wrong(check, page, "its nodes overlap or leave gaps");
	}
	if (depth > 1) {
		check->found.branch_pages++;
	} else {
		check->found.leaf_pages++;
		check->found.entries += count;
	}
	return 0;
}

static int check_tree(struct check *check, const struct tree *tree, bool free_pages)
{
	memset(&check->found, 0, sizeof(check->found));
	if (tree->root == PAGE_NONE) {
		return tree->depth == 0 && tree->entries == 0 ? 0
							      : wrong(check, 0,
								      "an empty tree is "
								      "not empty");
	}
	if (tree->depth == 0 || tree->depth > DEPTH_MAX) {
		return wrong(check, tree->root, "a tree's depth cannot be");
	}
	if (check_page(check, tree->root, tree->depth, free_pages) != 0) {
		return -1;
	}
	if (check->found.branch_pages != tree->branch_pages ||
	    check->found.leaf_pages != tree->leaf_pages ||
	    check->found.overflow_pages != tree->overflow_pages ||
	    check->found.entries != tree->entries) {
		return wrong(check, tree->root, "a tree has not the pages it should have");
	}
	return 0;
}

// Reads both meta pages and picks the newer one, as LMDB does. False if they are not what is known
// here.
static bool pick_meta(const unsigned char *file, uint64_t file_bytes, struct meta_page *meta)
{
	struct meta_page both[2];
	if (file_bytes < sizeof(both[0])) {
		return false;
	}
	memcpy(&both[0], file, sizeof(both[0]));
	uint64_t page_bytes = both[0].trees[0].pad;
	if (page_bytes < 512 || page_bytes > PAGE_BYTES_MAX ||
	    (page_bytes & (page_bytes - 1)) != 0 || file_bytes < page_bytes + sizeof(both[1])) {
		return false;
	}
	memcpy(&both[1], file + page_bytes, sizeof(both[1]));
	for (int i = 0; i < 2; i++) {
		if (both[i].magic != META_MAGIC || both[i].version != META_VERSION ||
		    !(both[i].page.flags & PAGE_META) || both[i].trees[0].pad != page_bytes) {
			return false;
		}
	}
	*meta = both[both[0].transaction < both[1].transaction ? 1 : 0];
	return true;
}

int store_pages_check_image(const void *file, uint64_t file_bytes, bool trees_only, char *why,
			    size_t why_bytes)
{
	struct check check = {
		.file = file,
		.trees_only = trees_only,
		.why = why,
		.why_bytes = why_bytes,
	};
	struct meta_page meta;
	if (!pick_meta(file, file_bytes, &meta)) {
		return 0;
	}
	if (meta.transaction == 0 && meta.trees[1].root == PAGE_NONE) {
		return 1;
	}
	check.page_bytes = meta.trees[0].pad;
	check.pages = file_bytes / check.page_bytes;
	check.last_page = meta.last_page;
	// Free pages beyond the end exist, but not many: a transaction's worth.
	if (meta.last_page / 2 > check.pages + (1u << 20)) {
		return outside(&check, meta.last_page, 1);
	}
	uint64_t most = check.pages > check.last_page ? check.pages : check.last_page + 1;
	check.used = calloc(most / 8 + 1, 1);
	if (check.used == NULL) {
		return 0; // LMDB, which needs far more, will tell
	}
	int result = check_tree(&check, &meta.trees[1], false);
	if (result == 0) {
		result = check_tree(&check, &meta.trees[0], true);
	}
	free(check.used);
	return result;
}

// A meta page that nothing was committed to.
static bool meta_unborn(const unsigned char *at, uint64_t bytes)
{
	static const unsigned char zeroes[PAGE_BYTES_MAX];
	struct meta_page meta;
	if (memcmp(at, zeroes, bytes) == 0) {
		return true;
	}
	memcpy(&meta, at, sizeof(meta));
	return meta.magic == META_MAGIC && meta.version == META_VERSION && meta.transaction == 0 &&
	       meta.trees[1].root == PAGE_NONE;
}

bool store_pages_known(int fd)
{
	struct meta_page meta;
	return pread(fd, &meta, sizeof(meta), 0) == (ssize_t)sizeof(meta) &&
	       meta.magic == META_MAGIC && meta.version == META_VERSION;
}

bool store_pages_unborn(int fd, uint64_t file_bytes)
{
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	page_bytes = page_bytes < PAGE_BYTES_MAX ? page_bytes : PAGE_BYTES_MAX;
	unsigned char *file = file_bytes <= 2 * page_bytes ? calloc(1, 2 * page_bytes) : NULL;
	bool unborn = false;
	if (file != NULL && pread(fd, file, file_bytes, 0) == (ssize_t)file_bytes) {
		unborn = meta_unborn(file, page_bytes) &&
			 meta_unborn(file + page_bytes, page_bytes);
	}
	free(file);
	return unborn;
}

int store_pages_check(int fd, uint64_t file_bytes, bool trees_only, char *why, size_t why_bytes)
{
	if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || sizeof(void *) != 8) {
		return 0;
	}
	if (store_pages_unborn(fd, file_bytes)) {
		return 1;
	}
	void *file = mmap(NULL, file_bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (file == MAP_FAILED) {
		return 0; // LMDB, which needs far more, will tell
	}
	int result = store_pages_check_image(file, file_bytes, trees_only, why, why_bytes);
	(void)munmap(file, file_bytes);
	return result;
}
