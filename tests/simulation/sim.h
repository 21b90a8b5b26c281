// SPDX-License-Identifier: MIT
//
// The simulated machine that a whole kvd runs in, on one thread: a clock, randomness, threads that
// are fibers, sockets that are queues, a disk that is a list of blocks, and a keeper that holds the
// region. Everything follows from one seed. kvd is the real one; what it asks of the system is
// caught at link time (meson.build lists the names), so nothing of it can bypass the simulation
// unnoticed and nothing of it was changed to allow it.
//
// One process runs one seed, so what is here is global and nothing is ever freed.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/storage/store.h"

struct command;
struct config;
struct kvd;
struct kvs_record_view;
struct resp_arg;
struct session;

#define SIM_CLIENTS_MAX 10
#define SIM_READERS_MAX 4
#define SIM_KEYS_MAX 64
#define SIM_FILLERS 5000 // keys behind those, of the client that makes the table grow and shrink
#define SIM_KEPT_FD 700	 // descriptors from here on are not the simulated kvd's
#define SIM_NEVER UINT64_MAX

// ---- what a seed decides ----

/// What kvd does when memory is full.
enum sim_when_full { SIM_REJECTS, SIM_EVICTS, SIM_SPILLS };

struct sim_plan {
	unsigned policy; // enum persist_policy
	unsigned clients, watchers, readers;
	unsigned keys;
	unsigned fillers;	// SIM_FILLERS or 0
	unsigned commands;	// that are sent in all
	unsigned value_bytes;	// of most values, at most
	unsigned large_percent; // of values that are large ones
	unsigned depth;		// requests that a client has under way
	unsigned expire_ms;	// most that a time to live is
	unsigned memory_mib;
	unsigned clock_percent; // a step forward may be this much more than usual
	bool jumps;		// wall time jumps, too
	bool tells_clock;	// and the kernel tells who asks
	bool keeper;		// the region outlives kvd
	bool crashes;
	unsigned crash_point_chance; // of so many passes of a labelled point one dies; 0 = none
	unsigned disk_chance;	     // of so many calls of the store one fails; 0 = none
	unsigned cut_chance;	     // of so many steps one ends a connection; 0 = none
	unsigned yield_chance;	     // inside kvd's commands, of so many chances one is taken
	unsigned memory_chance;	     // of so many pieces of memory one is refused; 0 = none
	bool siphash;		     // how keys are hashed
	bool resizes;		     // the bound on memory moves
	bool reseeds;		     // the table is given another hash key now and then
	bool moves;		     // large values are in the way of others
	bool prefault;		     // all memory is taken at the start
	unsigned read_chance; // of so many values read from the store one is not had; 0 = none
	enum sim_when_full when_full;
};

// ---- plan.c ----

void sim_plan_make(struct sim_plan *plan);
/// The configuration of each life.
void sim_plan_config(struct config *config);
const char *sim_plan_policy(void);

// ---- sim.c: the machine ----

struct sim {
	uint64_t seed;
	uint64_t state; // of the generator
	uint64_t trace; // hash of all that happened
	uint64_t step;
	bool verbose;
	struct sim_plan plan;
	uint64_t mono_ns;
	int64_t wall_offset_us;
	uint64_t wall_max_ms; // the latest that kvd may have seen
	char dir[96];
	// The life of kvd that runs now, or ran last.
	struct kvd *kvd; // NULL until it has loaded everything, and when it is down
	bool serves;
	uint64_t kept_instance; // of the region that it was given, 0 = none
	uint64_t instance;	// of the region that the model speaks of
	bool up;		// a process is there
	bool crash;		// it dies as soon as the fiber that runs gives way
	bool over;		// its main function returned
	bool squeezes;		// a rebuild of the table is under way that waited for memory
	bool orderly;		// and all was kept
	bool stop;		// SIGTERM is pending
	bool quiet;		// no more faults: all must come to an end
	bool stalled;		// seconds went by once while nobody ran
	int exit_code;
	unsigned lives;
	// Counted for the report.
	unsigned crashes, adoptions, loads, points, faults, refused, splits, gets, revoked, plans,
		recounts, bounds, evicted, spilled, promoted, reseeds, moved, returned, unread,
		squeezed, sleeps;
};
extern struct sim sim;

uint64_t sim_random(void);
/// Below `bound`, which is not 0.
uint64_t sim_below(uint64_t bound);
/// True once in `chance` times; 0 = never.
bool sim_chance(uint64_t chance);
/// Something happened: joins the trace, and is printed if that is wanted.
__attribute__((format(printf, 1, 2))) void sim_note(const char *format, ...);
/// kvd did what it must not do: ends the seed.
__attribute__((format(printf, 1, 2), noreturn)) void sim_fail(const char *format, ...);
uint64_t sim_wall_ms(void);
/// May something fail now?
bool sim_fault(uint64_t chance);
/// Runs the seed. Returns if all went well.
void sim_run(void);
/// Starts the next life / ends this one without a warning.
void sim_boot(void);
void sim_kill(void);

// ---- refuse.c: memory ----

/// Memory that stays, zeroed. Never refused, nor is the next.
void *sim_alloc(size_t bytes);
void *sim_grow(void *old, size_t bytes);

// ---- fiber.c: threads ----

enum sim_wait { SIM_RUNS, SIM_EPOLL, SIM_COND, SIM_SLEEP, SIM_JOIN, SIM_OVER };

/// Adds a fiber; nothing of it runs yet. Returns its number.
unsigned sim_fiber(void *(*run)(void *argument), void *argument);
/// Gives way, from inside a fiber, until `wait` is over or `until_ns`. Nothing outside of one.
void sim_give_way(enum sim_wait wait, const void *what, uint64_t until_ns);
/// Is any fiber running right now?
bool sim_in_fiber(void);
/// Lets one that can run go on; false if none can.
bool sim_fiber_step(void);
/// When the next would wake by itself, SIM_NEVER = none.
uint64_t sim_fiber_wake_ns(void);
/// They are gone, wherever they stood.
void sim_fibers_forget(void);

// ---- net.c: sockets and epoll ----

struct sim_conn;
/// The client's side. NULL if nobody listens.
struct sim_conn *sim_connect(int pid, uint32_t uid, bool *dead);
void sim_conn_send(struct sim_conn *conn, const void *bytes, size_t count);
/// Part of what was sent arrives; false if nothing is on its way.
bool sim_conn_deliver(struct sim_conn *conn, bool all);
/// Takes up to `count` bytes that kvd sent; 0 = none now, -1 = the end.
long sim_conn_take(struct sim_conn *conn, char *out, size_t count);
/// Descriptors that came; they are the caller's.
unsigned sim_conn_fds(struct sim_conn *conn, int *fds);
void sim_conn_close(struct sim_conn *conn, bool reset);
/// A process ended: what watches it is told.
void sim_process_ended(void);
/// The process of kvd is gone with all its ends.
void sim_net_forget(void);
bool sim_net_ready(void);
/// Wall time was set: timers that are cancelled by that are.
void sim_net_clock_set(void);
struct sim_client *sim_client_of_fd(int fd);
void sim_conn_owner(struct sim_conn *conn, struct sim_client *client);

// ---- disk.c: the store ----

/// Version up to which the disk has everything, now.
uint64_t sim_disk_durable(void);
/// A block of the store that serves; false if there is none of this number.
bool sim_disk_block(uint64_t number, const unsigned char **bytes, uint32_t *count);
uint64_t sim_disk_next_block(void);
uint64_t sim_disk_oldest_block(void);
/// Does the record of this stub stand there?
bool sim_disk_stands_at(const struct kvs_record_view *stub, uint64_t place);
/// The value of a version of a key, NULL if the disk has not got it.
const void *sim_disk_value(const struct kvs_record_view *view);

// ---- model.c: what the keys must be ----

struct sim_value {
	size_t bytes;
	unsigned char data[];
};

struct sim_key {
	char name[24];
	size_t name_bytes;
	const struct sim_value *value;	 // NULL = absent
	uint64_t expire_ms;		 // 0 = never
	uint64_t change;		 // of its last change
	uint64_t evicted_in;		 // the command in the middle of which it went, 0 = none
	const struct sim_value *evicted; // what it had then
	uint64_t evicted_expire_ms;
	bool unread; // the store could not be read where its value is
};

struct sim_arg {
	const char *data;
	size_t bytes;
};

struct sim_request {
	unsigned argc, room;
	struct sim_arg *argv;
};

struct sim_text {
	char *data;
	size_t bytes, room;
};

struct sim_client;

void sim_model_begin(void);
/// How many keys there may be, fillers included.
unsigned sim_model_keys(void);
const struct sim_key *sim_model_key(unsigned index);
/// Keys whose time has come may have been removed by kvd: looks.
void sim_model_resolve(void);
/// Runs a request against the model and appends the reply that it must get.
void sim_model_run(struct sim_client *client, const struct sim_request *request, uint64_t now_ms,
		   struct sim_text *reply);
/// A transaction is over, or its connection.
void sim_model_leave_multi(struct sim_client *client);
/// The changes since the last call are of versions up to `seq`, begun behind `before`.
void sim_model_commit(uint64_t before, uint64_t seq);
/// A value that a mapped reader saw (NULL = absent): is it what must be there? In the middle of a
/// command it may be what the command makes of it.
void sim_model_saw(unsigned index, const void *value, size_t bytes, uint64_t seq);
/// The same of one that is in the store alone, so that its length is all that was seen.
void sim_model_saw_stub(unsigned index, size_t bytes);
/// kvd is about to evict a key, whose index is returned; it did, as of version `seq`, or could not.
unsigned sim_model_evicting(const void *name, size_t bytes);
void sim_model_evicted(unsigned index, bool gone, uint64_t seq);
/// What it had before it went in the middle of the command that runs; NULL: it did not.
const struct sim_value *sim_model_went(unsigned index, uint64_t *expire_ms);
/// The store could not be read where the value of a key is.
void sim_model_unread(const void *name, size_t bytes);
/// Is it the error for that, of a command or of one of a transaction?
bool sim_model_is_unread(const char *reply, size_t bytes);
/// A value was put back into memory.
void sim_model_promoted(const void *name, size_t bytes, const void *value, size_t value_bytes);
/// kvd is there again: compares what it has with what it may have.
void sim_model_recovered(bool adopted, bool orderly);
/// All keys now.
void sim_model_compare(const char *when);
/// The first key whose stub does not say where its value is in the store, NULL: there is none.
const char *sim_model_misplaced(void);
/// Nobody was told what the command did: the keys are what kvd has of them.
void sim_model_believe(void);
/// How many FLUSHALLs there were.
unsigned sim_model_flushes(void);
/// The greatest version that was seen.
uint64_t sim_model_last_seq(void);
/// kvd began a command: what a crash leaves of it is its effect or nothing.
void sim_model_pending(const struct sim_client *client, const struct sim_request *request,
		       uint64_t now_ms);
void sim_model_settled(void);

// ---- client.c: who sends ----

struct sim_expect {
	const char *bytes; // NULL = anything
	size_t count;
	uint64_t seq;	       // must be durable before it is sent; 0 = need not
	bool is_error;	       // any error
	struct sim_text other; // will do as well, if it is not empty
};

struct sim_watch {
	bool is_set, was_visible;
	uint64_t change, since; // of the key; of the model
	unsigned refused;	// sim.refused then
};

struct sim_client {
	unsigned index;
	struct sim_conn *conn;
	bool is_watcher; // whatever it is told is well-formed, and that is all
	bool is_filler;	 // all that it sends is keys by the hundred, set or removed
	bool dead;	 // its process
	int pid;
	uint32_t uid;
	unsigned resp;
	struct sim_request *requests; // by number, of this connection
	unsigned sent, dispatched, room;
	struct sim_expect *expects;
	unsigned expected, answered, expects_room;
	struct sim_text in;
	// As the model sees it.
	bool multi, multi_dirty;
	unsigned queued[64]; // numbers of requests
	unsigned queued_count;
	struct sim_watch watch[SIM_KEYS_MAX];
	bool watch_unsure; // kvd may find a watched key changed, or not
	const char *head;  // where the reply of the command that was over begins, NULL = unknown
	size_t head_bytes; // so much of it is there
	unsigned refused_before; // sim.refused as the command began
	bool unsure;		 // memory was refused since: errors are taken for that
	struct sim_text early;	 // reply of a read that was cut, as of its first slice
	bool has_early;
	struct sim_text flushed; // the same as of the first FLUSHALL since: it may begin anew there
	bool has_flushed;
	uint64_t asked_ns; // since when it waits
};

void sim_clients_begin(void);
/// Something that one of them does. False if there was nothing to do.
bool sim_client_step(void);
bool sim_clients_done(void);
void sim_clients_hung(void);
/// Length of the reply at `at`, 0 = not all of it is there.
size_t sim_frame_bytes(const char *at, size_t bytes);
unsigned sim_commands_sent(void);

// ---- request.c: what is sent ----

/// Where part of a reply is an error, only that it is one counts: "-ERR" in `expected`.
bool sim_text_matches(const char *expected, size_t expected_bytes, const char *got,
		      size_t got_bytes);
void sim_request_make(struct sim_client *client, struct sim_request *request);
void sim_request_filler(struct sim_request *request);
void sim_request_watcher(struct sim_client *client, struct sim_request *request);
const struct sim_value *sim_value_make(void);
void sim_text_add(struct sim_text *text, const void *bytes, size_t count);
__attribute__((format(printf, 2, 3))) void sim_text_print(struct sim_text *text, const char *format,
							  ...);

// ---- reader.c: who maps ----

void sim_readers_begin(void);
/// One of them does something.
void sim_reader_step(void);

// ---- expiry.c: what is due goes ----

/// kvd, which serves, has made a step.
void sim_check_expiry(void);

// ---- sleep.c: the loop comes in time ----

/// The loop means to sleep until then. True: it is woken at once, for nothing.
bool sim_sleep_is_cut(uint64_t until_ns);
/// Something was done to kvd that it could not foresee.
void sim_sleep_forget(void);

// ---- check.c: the region ----

/// The plan phase of adoption looks at the region, which must be whole. `dead`: kvd just died.
void sim_check_region(bool dead);
/// kvd is no more: what its region says of it is what the kernel leaves.
void sim_presence_over(void);
/// The keeper has a region of the last life?
bool sim_keeper_has(void);
void sim_keeper_drop(void);
/// Of the one that served last, 0 = it is not among what is kept.
uint64_t sim_keeper_instance(void);
