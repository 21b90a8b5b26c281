// SPDX-License-Identifier: MIT
//
// Refusals; see refuse.h. Each reason has some log sites, of which a user gets one by its number:
// the log's own limit is for each site.
#include "daemon/refuse.h"

#include <stdarg.h>
#include <stdio.h>

#include "daemon/keyspace.h"
#include "daemon/kvd.h"
#include "daemon/log.h"
#include "daemon/session.h"
#include "shm/counters.h"
#include "shm/map.h"

#define REFUSE_SITES 16u // of one reason
#define REFUSE_TEXT_BYTES 512u

static const struct {
	enum kvs_counter counter;
	const char *what;
} refusals[REFUSALS_COUNT] = {
#define X(name, counter, what) { KVS_COUNTER_##counter, what },
#include "daemon/refusals.tbl.h"
#undef X
};

__attribute__((format(printf, 4, 0))) static void refuse_write(struct kvd *kvd, enum refusal why,
							       const struct refused *who,
							       const char *format, va_list args)
{
	static struct log_site sites[REFUSALS_COUNT][REFUSE_SITES];
	char text[REFUSE_TEXT_BYTES];
	void *base = keyspace_map(kvd->keyspace)->base;
	kvs_count(kvs_counter_word(base, refusals[why].counter), 1); // partner: none, statistics
	(void)vsnprintf(text, sizeof(text), format, args);
	struct log_site *site = &sites[why][who->uid % REFUSE_SITES];
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
