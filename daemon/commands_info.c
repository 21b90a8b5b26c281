// SPDX-License-Identifier: MIT
//
// INFO and TIME. INFO's fields are a frozen list: clients and exporters look for Redis's names, so
// those that mean something here keep them, and what only kvd has stands in its own section.
#include "daemon/commands_info.h"
#include "daemon/commands.h"

#include <inttypes.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "daemon/config_set.h"
#include "daemon/keyspace_memory.h"
#include "daemon/listener.h"
#include "daemon/persist.h"
#include "daemon/pubsub.h"
#include "daemon/readers.h"
#include "daemon/session_rest.h"
#include "daemon/text.h"
#include "daemon/tracking.h"
#include "shm/map.h"

#define INFO_BYTES_MAX (256u << 10)
#define INFO_ARGS_EVERY 16u	    // arguments between two looks at the clock
#define INFO_ROWS_EVERY 8u	    // of a section with a row for each command
#define INFO_REDIS_VERSION "7.0.15" // the one whose commands these are

static const char *const info_policies[] = { "memory", "lazy", "group", "sync" };

static uint64_t info_counter(const struct kvd *kvd, enum kvs_counter counter)
{
	return stats_get(kvd->stats, counter);
}

static void info_number(struct text *text, const char *name, uint64_t number)
{
	text_printf(text, "%s:%" PRIu64 "\r\n", name, number);
}

static void info_string(struct text *text, const char *name, const char *value)
{
	text_printf(text, "%s:%s\r\n", name, value);
}

/// A size as a person reads it, in Redis's form: 1.50M.
static void info_human(struct text *text, const char *name, uint64_t bytes)
{
	static const char units[] = "BKMGTP";
	double value = (double)bytes;
	unsigned unit = 0;
	while (value >= 1024 && unit < 5) {
		value /= 1024;
		unit++;
	}
	text_printf(text, unit ? "%s:%.2f%c\r\n" : "%s:%.0f%c\r\n", name, value, units[unit]);
}

static void info_percent(struct text *text, const char *name, uint64_t part, uint64_t whole)
{
	text_printf(text, "%s:%.2f%%\r\n", name,
		    whole ? 100.0 * (double)part / (double)whole : 0.0);
}

static void info_server(const struct kvd *kvd, struct text *text)
{
	struct utsname name;
	uint64_t uptime_s = (kvd->seam->monotonic_ns() - kvd->started_ns) / 1000000000u;
	info_string(text, "redis_version", INFO_REDIS_VERSION);
	info_string(text, "redis_git_sha1", "00000000");
	info_string(text, "redis_git_dirty", "0");
	info_string(text, "redis_build_id", "kvd-" KVD_VERSION);
	info_string(text, "redis_mode", "standalone");
	if (uname(&name) == 0) {
		text_printf(text, "os:%s %s %s\r\n", name.sysname, name.release, name.machine);
	}
	info_number(text, "arch_bits", 8 * sizeof(void *));
	info_string(text, "monotonic_clock", "POSIX clock_gettime");
	info_string(text, "multiplexing_api", "epoll");
	info_string(text, "atomicvar_api", "c11-builtin");
	text_printf(text, "gcc_version:%d.%d.%d\r\n", __GNUC__, __GNUC_MINOR__,
		    __GNUC_PATCHLEVEL__);
	info_number(text, "process_id", (uint64_t)getpid());
	info_string(text, "process_supervised", "no");
	info_string(text, "run_id", kvd->run_id);
	info_number(text, "tcp_port", 0);
	info_number(text, "server_time_usec", kvd->seam->wall_ms() * 1000);
	info_number(text, "uptime_in_seconds", uptime_s);
	info_number(text, "uptime_in_days", uptime_s / 86400);
	info_number(text, "hz", 0);
	info_number(text, "configured_hz", 0);
	info_number(text, "lru_clock", 0);
	info_string(text, "config_file", kvd->config.config_path ? kvd->config.config_path : "");
	info_number(text, "io_threads_active", 0);
	info_string(text, "kvd_version", KVD_VERSION);
}

static void info_clients(const struct kvd *kvd, struct text *text)
{
	info_number(text, "connected_clients", info_counter(kvd, KVS_COUNTER_clients_connected));
	info_number(text, "cluster_connections", 0);
	info_number(text, "maxclients", kvd->config.clients_max);
	info_number(text, "blocked_clients",
		    session_paused_count(listener_sessions(kvd->listener)));
	info_number(text, "tracking_clients", tracking_clients_count(kvd));
	info_number(text, "clients_in_timeout_table", 0);
	info_number(text, "attached_clients", info_counter(kvd, KVS_COUNTER_clients_attached));
}

static void info_memory(const struct kvd *kvd, struct text *text)
{
	struct stats *stats = kvd->stats;
	uint64_t used = info_counter(kvd, KVS_COUNTER_memory_used_bytes);
	uint64_t cold = info_counter(kvd, KVS_COUNTER_cold_bytes);
	uint64_t live = info_counter(kvd, KVS_COUNTER_memory_live_bytes) - cold;
	uint64_t limit = kvd->config.maxmemory_bytes;
	uint64_t resident = stats_resident_bytes(kvd);
	uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	stats->memory_peak_bytes =
		used > stats->memory_peak_bytes ? used : stats->memory_peak_bytes;
	info_number(text, "used_memory", used);
	info_human(text, "used_memory_human", used);
	info_number(text, "used_memory_rss", resident);
	info_human(text, "used_memory_rss_human", resident);
	info_number(text, "used_memory_peak", stats->memory_peak_bytes);
	info_human(text, "used_memory_peak_human", stats->memory_peak_bytes);
	info_percent(text, "used_memory_peak_perc", used, stats->memory_peak_bytes);
	info_number(text, "used_memory_overhead", used > live ? used - live : 0);
	info_number(text, "used_memory_startup", 0);
	info_number(text, "used_memory_dataset", live);
	info_percent(text, "used_memory_dataset_perc", live, used);
	info_number(text, "total_system_memory", machine);
	info_human(text, "total_system_memory_human", machine);
	info_number(text, "used_memory_lua", 0);
	info_human(text, "used_memory_lua_human", 0);
	info_number(text, "used_memory_scripts", 0);
	info_human(text, "used_memory_scripts_human", 0);
	info_number(text, "number_of_cached_scripts", 0);
	info_number(text, "number_of_functions", 0);
	info_number(text, "number_of_libraries", 0);
	info_number(text, "maxmemory", limit);
	info_human(text, "maxmemory_human", limit);
	char policy[32];
	config_value(&kvd->config, config_find("maxmemory-policy", 16), policy, sizeof(policy));
	info_string(text, "maxmemory_policy", policy);
	info_string(text, "maxmemory_waits_for",
		    keyspace_bound_name(keyspace_bound(kvd->keyspace)));
	text_printf(text, "mem_fragmentation_ratio:%.2f\r\n",
		    used ? (double)resident / (double)used : 0.0);
	text_printf(text, "mem_fragmentation_bytes:%" PRId64 "\r\n",
		    (int64_t)resident - (int64_t)used);
	info_number(text, "mem_not_counted_for_evict", 0);
	info_number(text, "mem_replication_backlog", 0);
	info_number(text, "mem_total_replication_buffers", 0);
	info_number(text, "mem_clients_slaves", 0);
	info_number(text, "mem_clients_normal",
		    session_buffer_bytes(listener_sessions(kvd->listener)));
	info_number(text, "mem_cluster_links", 0);
	info_number(text, "mem_aof_buffer", 0);
	info_string(text, "mem_allocator", "kvd-log");
	info_number(text, "allocator_allocated", live);
	info_number(text, "allocator_active", used);
	info_number(text, "allocator_resident", resident);
	text_printf(text, "allocator_frag_ratio:%.2f\r\n",
		    live ? (double)used / (double)live : 1.0);
	info_number(text, "allocator_frag_bytes", used > live ? used - live : 0);
	info_number(text, "active_defrag_running", 0);
	info_number(text, "lazyfree_pending_objects", 0);
}

static void info_persistence(const struct kvd *kvd, struct text *text)
{
	const char *why = NULL;
	enum persist_state state =
		kvd->persist ? persist_state(kvd->persist, &why) : PERSIST_STATE_OK;
	bool degraded = state != PERSIST_STATE_OK;
	uint64_t last = keyspace_last_seq(kvd->keyspace);
	uint64_t durable = keyspace_durable_seq(kvd->keyspace);
	info_number(text, "loading", 0);
	info_number(text, "async_loading", 0);
	info_number(text, "rdb_changes_since_last_save", last > durable ? last - durable : 0);
	info_number(text, "rdb_bgsave_in_progress", 0);
	info_number(text, "rdb_last_save_time", kvd->durable_wall_ms / 1000);
	info_number(text, "rdb_saves", info_counter(kvd, KVS_COUNTER_commits));
	info_string(text, "rdb_last_bgsave_status", degraded ? "err" : "ok");
	info_string(text, "rdb_last_bgsave_time_sec", "-1");
	info_string(text, "rdb_current_bgsave_time_sec", "-1");
	info_number(text, "aof_enabled", 0);
	info_number(text, "aof_rewrite_in_progress", 0);
	info_number(text, "aof_rewrite_scheduled", 0);
	info_string(text, "aof_last_rewrite_time_sec", "-1");
	info_string(text, "aof_current_rewrite_time_sec", "-1");
	info_string(text, "aof_last_bgrewrite_status", "ok");
	info_string(text, "aof_last_write_status", degraded ? "err" : "ok");
	info_string(text, "persist_policy", info_policies[kvd->config.persist_policy & 3]);
	info_string(text, "persist_state", persist_state_name(state));
	info_number(text, "persist_renewals", kvd->persist ? persist_renewals(kvd->persist) : 0);
	if (degraded && why) {
		info_string(text, "persist_error", why);
	}
	info_number(text, "applied_seq", last);
	info_number(text, "durable_seq", durable);
}

static void info_since(const struct kvd *kvd, struct text *text, const char *name,
		       enum kvs_counter counter)
{
	info_number(text, name, stats_since_reset(kvd->stats, counter));
}

static void info_stats(const struct kvd *kvd, struct text *text)
{
	struct stats_rates rates = stats_rates(kvd->stats, keyspace_now_ms(kvd->keyspace));
	info_since(kvd, text, "total_connections_received", KVS_COUNTER_connections_received);
	info_since(kvd, text, "total_commands_processed", KVS_COUNTER_commands_processed);
	info_number(text, "instantaneous_ops_per_sec", rates.commands);
	info_since(kvd, text, "total_net_input_bytes", KVS_COUNTER_input_bytes);
	info_since(kvd, text, "total_net_output_bytes", KVS_COUNTER_output_bytes);
	text_printf(text, "instantaneous_input_kbps:%.2f\r\n", rates.input_kib);
	text_printf(text, "instantaneous_output_kbps:%.2f\r\n", rates.output_kib);
	info_since(kvd, text, "rejected_connections", KVS_COUNTER_connections_rejected);
	info_number(text, "sync_full", 0);
	info_number(text, "sync_partial_ok", 0);
	info_number(text, "sync_partial_err", 0);
	info_since(kvd, text, "expired_keys", KVS_COUNTER_keys_expired);
	info_since(kvd, text, "evicted_keys", KVS_COUNTER_keys_evicted);
	info_since(kvd, text, "keyspace_hits", KVS_COUNTER_socket_hits);
	info_since(kvd, text, "keyspace_misses", KVS_COUNTER_socket_misses);
	info_number(text, "pubsub_channels", pubsub_names_count(kvd, PUBSUB_CHANNEL));
	info_number(text, "pubsub_patterns", pubsub_names_count(kvd, PUBSUB_PATTERN));
	info_number(text, "pubsubshard_channels", pubsub_names_count(kvd, PUBSUB_SHARD));
	info_number(text, "latest_fork_usec", 0);
	info_number(text, "total_forks", 0);
	info_number(text, "migrate_cached_sockets", 0);
	info_number(text, "slave_expires_tracked_keys", 0);
	info_number(text, "tracking_total_keys", tracking_keys_count(kvd));
	info_number(text, "tracking_total_items", tracking_items_count(kvd));
	info_number(text, "tracking_total_prefixes", tracking_all_prefixes_count(kvd));
	info_number(text, "unexpected_error_replies", 0);
	info_since(kvd, text, "total_error_replies", KVS_COUNTER_commands_failed);
}

static void info_replication(const struct kvd *kvd, struct text *text)
{
	info_string(text, "role", "master");
	info_number(text, "connected_slaves", 0);
	info_string(text, "master_failover_state", "no-failover");
	info_string(text, "master_replid", kvd->run_id);
	info_string(text, "master_replid2", "0000000000000000000000000000000000000000");
	info_number(text, "master_repl_offset", 0);
	info_string(text, "second_repl_offset", "-1");
	info_number(text, "repl_backlog_active", 0);
	info_number(text, "repl_backlog_size", 0);
	info_number(text, "repl_backlog_first_byte_offset", 0);
	info_number(text, "repl_backlog_histlen", 0);
}

static void info_cpu_time(struct text *text, const char *name, const struct timeval *time)
{
	text_printf(text, "%s:%ld.%06ld\r\n", name, (long)time->tv_sec, (long)time->tv_usec);
}

static void info_cpu(const struct kvd *kvd, struct text *text)
{
	(void)kvd;
	static const struct {
		int who;
		const char *sys;
		const char *user;
	} rows[] = {
		{ RUSAGE_SELF, "used_cpu_sys", "used_cpu_user" },
		{ RUSAGE_CHILDREN, "used_cpu_sys_children", "used_cpu_user_children" },
		{ RUSAGE_THREAD, "used_cpu_sys_main_thread", "used_cpu_user_main_thread" },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct rusage usage;
		if (getrusage(rows[i].who, &usage) == 0) {
			info_cpu_time(text, rows[i].sys, &usage.ru_stime);
			info_cpu_time(text, rows[i].user, &usage.ru_utime);
		}
	}
}

static void info_modules(const struct kvd *kvd, struct text *text)
{
	(void)kvd; // there are none; clients look for the heading
	(void)text;
}

static void info_cluster(const struct kvd *kvd, struct text *text)
{
	(void)kvd;
	info_number(text, "cluster_enabled", 0);
}

static void info_keyspace(const struct kvd *kvd, struct text *text)
{
	uint64_t keys = keyspace_count(kvd->keyspace);
	uint64_t expires = keyspace_count_with_expiry(kvd->keyspace);
	if (keys || expires) {
		text_printf(text, "db0:keys=%" PRIu64 ",expires=%" PRIu64 ",avg_ttl=0\r\n", keys,
			    expires);
	}
}

static void info_kvd(const struct kvd *kvd, struct text *text)
{
	const struct kvs_region_header *header = kvs_map_header(keyspace_map(kvd->keyspace));
	info_string(text, "version", KVD_VERSION);
	info_string(text, "socket", listener_path(kvd->listener));
	text_printf(text, "instance_id:%016" PRIx64 "\r\n", kvd->instance_id);
	info_number(text, "layout_version", header->layout_version);
	// partner: adoption's release store; shown only
	info_number(text, "incarnation", kvs_load_relaxed(&header->hot.incarnation));
	info_number(text, "region_bytes", header->region_bytes);
	info_number(text, "segment_bytes", header->segment_bytes);
	info_number(text, "value_bytes_max", keyspace_value_bytes_max(kvd->keyspace));
	for (size_t i = 0; i < KVS_COUNTERS_COUNT; i++) {
		info_number(text, kvs_counter_infos[i].name,
			    info_counter(kvd, (enum kvs_counter)i));
	}
}

static const struct info_section {
	const char *name; // as asked for
	const char *title;
	void (*write)(const struct kvd *kvd, struct text *text); // NULL: row by row
	void (*write_row)(const struct kvd *kvd, struct text *text, size_t command);
	bool by_default;
} info_sections[] = {
	{ "server", "Server", info_server, NULL, true },
	{ "clients", "Clients", info_clients, NULL, true },
	{ "memory", "Memory", info_memory, NULL, true },
	{ "persistence", "Persistence", info_persistence, NULL, true },
	{ "stats", "Stats", info_stats, NULL, true },
	{ "replication", "Replication", info_replication, NULL, true },
	{ "cpu", "CPU", info_cpu, NULL, true },
	{ "modules", "Modules", info_modules, NULL, true },
	{ "commandstats", "Commandstats", NULL, commands_info_commandstats, false },
	{ "errorstats", "Errorstats", commands_info_errorstats, NULL, true },
	{ "latencystats", "Latencystats", NULL, commands_info_latencystats, false },
	{ "cluster", "Cluster", info_cluster, NULL, true },
	{ "keyspace", "Keyspace", info_keyspace, NULL, true },
	{ "kvd", "Kvd", info_kvd, NULL, true },
};
#define INFO_SECTIONS (sizeof(info_sections) / sizeof(info_sections[0]))

/// What was asked for, what is written of it, and how far it is answered.
struct info_work {
	struct commands_walk args;
	bool wanted[INFO_SECTIONS];
	size_t section;
	size_t row; // of the section, 0 = its title is to be written
	size_t sent;
	bool begun;
	struct text text;
};

static void info_end(void *state)
{
	struct info_work *work = state;
	text_fini(&work->text);
}

/// Notes what one argument asks for; NULL stands for no argument at all.
static void info_want(struct info_work *work, const struct resp_arg *arg)
{
	bool all = arg && (commands_arg_is(arg, "all") || commands_arg_is(arg, "everything"));
	bool usual = !arg || commands_arg_is(arg, "default");
	for (size_t i = 0; i < INFO_SECTIONS; i++) {
		bool named = arg && commands_arg_is(arg, info_sections[i].name);
		work->wanted[i] =
			work->wanted[i] || all || named || (usual && info_sections[i].by_default);
	}
}

/// One section, or the rest of it. False: cut.
static bool info_write(struct call *call, struct info_work *work)
{
	const struct info_section *section = &info_sections[work->section];
	struct text *text = &work->text;
	if (work->row == 0) {
		text_printf(text, "%s# %s\r\n", text->bytes ? "\r\n" : "", section->title);
		work->row = 1;
	}
	if (section->write) {
		section->write(call->kvd, text);
		commands_info_never(text, section->name);
		return true;
	}
	for (; work->row <= COMMANDS_ROWS_COUNT; work->row++) {
		if (work->row % INFO_ROWS_EVERY == 0 && commands_cut(call)) {
			return false;
		}
		section->write_row(call->kvd, text, work->row - 1);
	}
	return true;
}

void commands_info_info(struct call *call)
{
	struct info_work *work = commands_state(call, sizeof(*work), info_end);
	if (!work) {
		return;
	}
	if (!work->begun) {
		work->begun = true;
		text_init(&work->text, INFO_BYTES_MAX);
	}
	uint64_t named = call->argc > 1 ? call->argc - 1 : 1;
	for (; work->args.at < named; work->args.at++) {
		if (work->args.at % INFO_ARGS_EVERY == 0 && commands_cut(call)) {
			return;
		}
		info_want(work, call->argc > 1 ? &call->argv[1 + work->args.at] : NULL);
	}
	for (; work->section < INFO_SECTIONS; work->section++, work->row = 0) {
		bool wanted = work->wanted[work->section];
		if (wanted && (commands_cut(call) || !info_write(call, work))) {
			return;
		}
	}
	const char *text = work->text.data ? work->text.data : "";
	(void)commands_reply_text(call, text, work->text.bytes, &work->sent);
}

void commands_info_time(struct call *call)
{
	uint64_t now_us = call->kvd->seam->wall_us();
	char number[RESP_NUMBER_BYTES_MAX];
	reply_array(call->session, 2);
	reply_bulk(call->session, number, resp_format_int(number, (int64_t)(now_us / 1000000)));
	reply_bulk(call->session, number, resp_format_int(number, (int64_t)(now_us % 1000000)));
}
