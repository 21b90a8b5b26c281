// SPDX-License-Identifier: MIT
//
// Refusals; see refuse.h. The log's own limit is for each site, so each reason has some, one for a
// user who is refused. Who finds none free shares the last one with others who did not.
#include "daemon/refuse.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include "daemon/keyspace.h"
#include "daemon/kvd.h"
#include "daemon/log.h"
#include "daemon/seam.h"
#include "daemon/session.h"
#include "shm/counters.h"
#include "shm/map.h"

#define REFUSE_SITES 16u		     // of one reason, and one for all others
#define REFUSE_KEPT_NS UINT64_C(60000000000) // for a user who is refused no more
#define REFUSE_TEXT_BYTES 512u

static const struct {
	enum kvs_counter counter;
	const char *what;
} refusals[REFUSALS_COUNT] = {
#define X(name, counter, what) { KVS_COUNTER_##counter, what },
#include "daemon/refusals.tbl.h"
#undef X
};

/// A place to log from, of a user's own.
struct refuse_site {
	struct log_site site;
	uint64_t used_ns; // last, 0 = never
	uint32_t uid;
};

static struct log_site *refuse_site(struct refuse_site sites[REFUSE_SITES + 1], uint32_t uid,
				    uint64_t now_ns)
{
	struct refuse_site *found = NULL;
	for (unsigned i = 0; i < REFUSE_SITES; i++) {
		struct refuse_site *one = &sites[i];
		bool is_free = one->used_ns == 0 || now_ns - one->used_ns >= REFUSE_KEPT_NS;
		if (one->used_ns != 0 && one->uid == uid) {
			found = one;
			break;
		}
		if (is_free && !found) {
			found = one;
		}
	}
	if (!found) {
		return &sites[REFUSE_SITES].site;
	}
	found->uid = uid;
	found->used_ns = now_ns;
	return &found->site;
}

__attribute__((format(printf, 4, 0))) static void refuse_write(struct kvd *kvd, enum refusal why,
							       const struct refused *who,
							       const char *format, va_list args)
{
	static struct refuse_site sites[REFUSALS_COUNT][REFUSE_SITES + 1];
	char text[REFUSE_TEXT_BYTES];
	void *base = keyspace_map(kvd->keyspace)->base;
	kvs_count(kvs_counter_word(base, refusals[why].counter), 1); // partner: none, statistics
	(void)vsnprintf(text, sizeof(text), format, args);
	struct log_site *site = refuse_site(sites[why], who->uid, kvd->seam->monotonic_ns());
	if (who->id == 0) {
		log_write(site, LOG_LEVEL_WARNING, "%s is refused to uid %u, pid %d: %s",
			  refusals[why].what, (unsigned)who->uid, (int)who->pid, text);
	} else {
		log_write(site, LOG_LEVEL_WARNING,
			  "%s is refused to client %llu (pid %d, uid %u): %s", refusals[why].what,
			  (unsigned long long)who->id, (int)who->pid, (unsigned)who->uid, text);
	}
}

void refuse_peer(struct kvd *kvd, enum refusal why, const struct refused *who, const char *format,
		 ...)
{
	va_list args;
	va_start(args, format);
	refuse_write(kvd, why, who, format, args);
	va_end(args);
}

void refuse(const struct session *session, enum refusal why, const char *format, ...)
{
	struct refused who = { .id = session->id, .uid = session->uid, .pid = session->pid };
	va_list args;
	va_start(args, format);
	refuse_write(session->kvd, why, &who, format, args);
	va_end(args);
}
