// SPDX-License-Identifier: MIT
//
// What kvctl doctor looks at, and what it makes of it. Facts are gathered first, from files of the
// kernel and from kvd; the judge sees nothing else, so each finding can be tried without a machine
// that is like that.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvctl;

#define DOCTOR_UNKNOWN (-1) // a number that could not be had
#define DOCTOR_NO_LIMIT INT64_MAX

/// What the machine grants.
struct doctor_machine {
	char thp[64]; // transparent_hugepage/enabled: the word that holds; empty: not known
	char thp_shmem[64];
	int64_t pool_pages, pool_available; // huge pages of 2 MiB of the system's pool
	int64_t memory_bytes, available_bytes, swap_bytes;
	int64_t commit_limit_bytes, committed_bytes;
	int64_t overcommit; // vm.overcommit_memory
	char clock[64];	    // clock source
};

/// What of the kernel kvd and its clients use, as far as kvctl may use it.
struct doctor_kernel {
	char release[80];
	bool membarrier; // MEMBARRIER_CMD_GLOBAL_EXPEDITED
	bool pidfd;
	bool peer_pidfd; // SO_PEERPIDFD
	bool noexec_seal;
	bool populate, collapse; // MADV_POPULATE_WRITE, MADV_COLLAPSE
};

/// What of it kvd's process has.
struct doctor_process {
	int64_t pid; // as this process sees it; 0 = none, or not to be seen
	int64_t uid;
	int64_t files_limit, locked_limit_bytes, file_limit_bytes;
	int64_t group_limit_bytes;		 // of its control groups
	char group[256];			 // the file that says so
	int64_t region_bytes, region_huge_bytes; // pages of the region that it maps
	char region_why[128];			 // why they were not counted
};

/// What kvd says of itself.
struct doctor_kvd {
	bool reached;
	char why[512]; // why it could not be
	char policy[16], state[16], state_why[256];
	char pages[16]; // kind of the region's
	bool locked, evicts, exact;
	int64_t bound_bytes, bound_max_bytes, used_bytes, file_bytes, expected_bytes;
	double fragmentation_percent;
	char in_the_way[96];
	int64_t wanted_bytes; // what the bound is to be; 0 = not told
	char bound_waits_for[96];
	int64_t clients, clients_max, undurable, store_bytes, store_live_bytes;
	int64_t damage_met, recovered_lost, verify_damaged;
	char readers_why[256];				   // why they are not known
	int64_t stuck_pid, stuck_age_us, stuck_held_bytes; // whoever holds most; pid 0 = nobody
	char stuck_name[64];
	int64_t own_uid_clients; // other processes than kvctl with kvd's uid
	int64_t own_uid_pid;	 // one of them
};

/// Where the store is.
struct doctor_folder {
	char path[512]; // empty = not known
	char type[32];	// of the file system
	char why[128];	// why it cannot be looked at
	bool present;
	int64_t free_bytes;
	int64_t store_bytes; // of the file, 0 = there is none
	int64_t locked_by;   // pid of whoever has its lock, 0 = nobody
	int64_t former;	     // stores that were put aside
	char former_name[256];
};

/// Where huge pages come from, if the kernel gives any.
enum doctor_huge {
	DOCTOR_HUGE_NONE,
	DOCTOR_HUGE_JOINED, // small ones are joined when it is asked to
	DOCTOR_HUGE_POOL,
};

/// What reading costs with pages of either size, measured now.
struct doctor_measure {
	bool done;
	char why[96]; // why it was not
	enum doctor_huge huge;
	int64_t bytes;		  // that were read in, of either
	double small_ns, huge_ns; // for a read at a place that follows from the one before
	double ratio;		  // how many times as fast
};

struct doctor_facts {
	struct doctor_machine machine;
	struct doctor_kernel kernel;
	struct doctor_process process;
	struct doctor_kvd kvd;
	struct doctor_folder folder;
	struct doctor_measure measure;
};

enum doctor_state {
	DOCTOR_OK,
	DOCTOR_SKIPPED, // it could not be looked at
	DOCTOR_NOTE,	// nothing is wrong, and something could be better
	DOCTOR_WARNING, // something should be done
	DOCTOR_DAMAGE,	// data is damaged
};

struct doctor_finding {
	enum doctor_state state;
	char text[768];
	char remedy[512]; // empty: none is needed
};

struct doctor_check {
	const char *name;
	const char *help;
	void (*judge)(const struct doctor_facts *facts, struct doctor_finding *finding);
};

extern const struct doctor_check doctor_checks[];
extern const size_t doctor_checks_count;

/// The word for a state, as it is printed.
const char *doctor_state_name(enum doctor_state state);

/// Reads files below `root` ("" for the system's); what cannot be read is DOCTOR_UNKNOWN.
void doctor_machine_find(const char *root, struct doctor_machine *machine);
/// Tries them.
void doctor_kernel_find(struct doctor_kernel *kernel);
/// Files of process->pid below `root`, but for the pages of its region.
void doctor_process_find(const char *root, struct doctor_process *process);
/// Those: the kernel tells root alone, and walks all of them for it, at which kvd may have to wait.
void doctor_process_pages(const char *root, struct doctor_process *process);
/// Looks at folder->path, and below `root` who has its lock.
void doctor_folder_find(const char *root, struct doctor_folder *folder);
/// Takes less than half a second of processor time, less than two in all, and 128 MiB, if the
/// machine and the control groups have four times that to spare.
void doctor_measure_reads(const struct doctor_machine *machine, struct doctor_measure *measure);
/// Connects and asks; fills facts->kvd, the process's pid and uid and the folder's path if it is
/// empty. Returns KVCTL_OK, also if kvd cannot be reached; KVCTL_USAGE after saying what is wrong.
int doctor_kvd_find(struct kvctl *kvctl, struct doctor_facts *facts);
