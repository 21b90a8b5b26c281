// SPDX-License-Identifier: MIT
//
// Replies as trees. The nodes of one reply stand in one array that grows to the largest reply seen
// and is reused; strings stay where they were received, with the carriage return behind them turned
// into the NUL that C wants.
#include <stdlib.h>
#include <string.h>

#include "libclient/internal.h"

#define REPLY_NODES_MIN 16u
#define REPLY_NODES_KEEP 65536u

/// Where the building of one tree stands.
struct reply_builder {
	char *input;
	size_t bytes;
	size_t offset;
	struct kvc_reply *nodes;
	size_t used;  // nodes given out
	size_t count; // nodes there are
};

static enum kvc_reply_type reply_type(const struct resp_node *node)
{
	switch (node->type) {
	case RESP_TYPE_STATUS:
		return KVC_REPLY_STATUS;
	case RESP_TYPE_ERROR:
	case RESP_TYPE_BULK_ERROR:
		return KVC_REPLY_ERROR;
	case RESP_TYPE_INTEGER:
		return KVC_REPLY_INTEGER;
	case RESP_TYPE_BOOLEAN:
		return KVC_REPLY_BOOLEAN;
	case RESP_TYPE_DOUBLE:
		return KVC_REPLY_DOUBLE;
	case RESP_TYPE_MAP:
		return KVC_REPLY_MAP;
	case RESP_TYPE_PUSH:
		return KVC_REPLY_PUSH;
	case RESP_TYPE_ARRAY:
	case RESP_TYPE_SET:
		return KVC_REPLY_ARRAY;
	default:
		return KVC_REPLY_STRING;
	}
}

static bool reply_is_aggregate(enum kvc_reply_type type)
{
	return type == KVC_REPLY_ARRAY || type == KVC_REPLY_MAP || type == KVC_REPLY_PUSH;
}

static bool reply_next(struct reply_builder *builder, struct resp_node *node)
{
	size_t consumed = 0;
	// unreached: resp_measure_reply() has parsed it once.
	if (resp_parse_node(builder->input + builder->offset, builder->bytes - builder->offset,
			    KVS_VALUE_BYTES_MAX, node, &consumed) != RESP_COMPLETE) {
		return false;
	}
	builder->offset += consumed;
	return true;
}

// Fills one node that is no aggregate: all others have a text.
static void reply_scalar(struct reply_builder *builder, const struct resp_node *node,
			 struct kvc_reply *reply)
{
	reply->integer = node->integer;
	// The byte behind every text is the '\r' of its line end: parsed already, free to use.
	builder->input[(size_t)(node->data - builder->input) + node->bytes] = '\0';
	reply->text = node->data;
	reply->text_bytes = node->bytes;
	if (reply->type == KVC_REPLY_DOUBLE) {
		reply->number = strtod(node->data, NULL);
	}
}

// Fills `reply` and its children from the next nodes. Depth is bounded by resp_measure_reply().
static bool reply_fill(struct reply_builder *builder, struct kvc_reply *reply)
{
	struct resp_node node;
	// unreached: as above.
	if (!reply_next(builder, &node)) {
		return false;
	}
	if (node.type == RESP_TYPE_ATTRIBUTE) {
		struct kvc_reply dropped;
		for (int64_t i = 0; i < node.integer; i++) {
			// unreached: as above.
			if (!reply_fill(builder, &dropped)) {
				return false;
			}
		}
		return reply_fill(builder, reply);
	}
	*reply = (struct kvc_reply){ .type = KVC_REPLY_NIL };
	if (node.null) {
		return true;
	}
	reply->type = reply_type(&node);
	if (!reply_is_aggregate(reply->type)) {
		reply_scalar(builder, &node, reply);
		return true;
	}
	size_t children = (size_t)node.integer;
	// unreached: they were counted.
	if (children > builder->count - builder->used) {
		return false;
	}
	reply->element = builder->nodes + builder->used;
	reply->count = reply->type == KVC_REPLY_MAP ? children / 2 : children;
	builder->used += children;
	for (size_t i = 0; i < children; i++) {
		// unreached: as above.
		if (!reply_fill(builder, &reply->element[i])) {
			return false;
		}
	}
	return true;
}

static bool reply_reserve(struct kvc_conn *conn, size_t nodes)
{
	if (conn->nodes_capacity > REPLY_NODES_KEEP && nodes <= REPLY_NODES_KEEP) {
		free(conn->nodes);
		conn->nodes = NULL;
		conn->nodes_capacity = 0;
	}
	if (nodes <= conn->nodes_capacity) {
		return true;
	}
	size_t capacity = nodes < REPLY_NODES_MIN ? REPLY_NODES_MIN : nodes;
	struct kvc_reply *grown = reallocarray(conn->nodes, capacity, sizeof(*grown));
	if (!grown) {
		return false;
	}
	conn->nodes = grown;
	conn->nodes_capacity = capacity;
	return true;
}

int kvc_reply_build(struct kvc_conn *conn, size_t nodes, const struct kvc_reply **reply)
{
	if (!reply_reserve(conn, nodes)) {
		return KVC_NO_MEMORY;
	}
	struct reply_builder builder = {
		.input = conn->in + conn->in_start,
		.bytes = conn->reply_bytes,
		.nodes = conn->nodes,
		.used = 1,
		.count = nodes,
	};
	// unreached: as above.
	if (!reply_fill(&builder, &conn->nodes[0])) {
		return KVC_PROTOCOL;
	}
	*reply = &conn->nodes[0];
	return KVC_OK;
}

const struct kvc_reply *kvc_reply_field(const struct kvc_reply *map, const char *name)
{
	size_t elements = map->type == KVC_REPLY_MAP	 ? map->count * 2
			  : map->type == KVC_REPLY_ARRAY ? map->count
							 : 0;
	size_t name_bytes = strlen(name);
	for (size_t i = 0; i + 1 < elements; i += 2) {
		const struct kvc_reply *key = &map->element[i];
		if (key->text && key->text_bytes == name_bytes &&
		    memcmp(key->text, name, name_bytes) == 0) {
			return &map->element[i + 1];
		}
	}
	return NULL;
}
