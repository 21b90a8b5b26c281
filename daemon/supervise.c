// SPDX-License-Identifier: MIT
//
// One loop over two descriptors, a signalfd and the keeper's socket. All signals are taken in order
// from the first, so there are no handlers and nothing to interrupt; being blocked also is what
// lets process 1 of a pid namespace get them.
#include "daemon/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/fdstore.h"
#include "daemon/keeper.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/self.h"
#include "daemon/signals.h"

#define SUPERVISE_DELAY_MS_FIRST 10u
#define SUPERVISE_DELAY_MS_MAX 5000u

struct supervise {
	const struct seam *seam;
	char *const *arguments;
	struct keeper *keeper;
	int epoll_fd;
	int signals_fd;
	sigset_t signals_before;
	struct sigaction child_before; // what SIGCHLD did
	pid_t child;		       // 0 = there is none
	uint64_t started_ns;
	uint64_t start_at_ns; // when there is no child
	unsigned deaths;      // in a row
	bool told;	      // to stop
	unsigned last;	      // children started since
	unsigned heard;	      // enum keeper_heard, of this child
	bool over;
	int code;
};

bool supervise_again(const struct supervise_end *end)
{
	bool exited = WIFEXITED(end->status);
	int code = exited ? WEXITSTATUS(end->status) : 0;
	if (exited && (code == 0 || end->stopping)) {
		return false;
	}
	if (end->told) {
		return end->keeps && end->last < SUPERVISE_LAST_MAX;
	}
	if (!exited) {
		return true;
	}
	// What is kept would go with the keeper: whatever the reason is, somebody may change it.
	bool may_last = !end->ready && !end->keeps;
	return !(may_last && (remedy_is_lasting(code) || code == EX_TEMPFAIL));
}

int supervise_code(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

uint64_t supervise_delay_ms(unsigned deaths)
{
	uint64_t delay_ms = SUPERVISE_DELAY_MS_FIRST;
	if (deaths < 2) {
		return 0;
	}
	for (unsigned i = 2; i < deaths && delay_ms < SUPERVISE_DELAY_MS_MAX; i++) {
		delay_ms *= 2;
	}
	return delay_ms < SUPERVISE_DELAY_MS_MAX ? delay_ms : SUPERVISE_DELAY_MS_MAX;
}

static int supervise_watch(struct supervise *s, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data = { .fd = fd } };
	return epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

static int supervise_signals(struct supervise *s)
{
	struct sigaction ordinary = { .sa_handler = SIG_DFL };
	sigset_t set, blocked;
	signals_taken(&set);
	(void)sigaddset(&set, SIGCHLD);
	blocked = set;
	(void)sigaddset(&blocked, SIGPIPE); // the log may be a pipe that nobody reads any more
	(void)sigaddset(&blocked, SIGXFSZ); // or a file that may not grow
	if (sigprocmask(SIG_BLOCK, &blocked, &s->signals_before) != 0 ||
	    sigaction(SIGCHLD, &ordinary, &s->child_before) != 0) {
		return -errno; // if that signal were ignored, nobody could be waited for
	}
	s->signals_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	return s->signals_fd < 0 ? -errno : supervise_watch(s, s->signals_fd);
}

static int supervise_open(struct supervise *s)
{
	int fd;
	// The first three must be there, or what is opened next is taken for them.
	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0) {
		(void)close(fd);
	}
	// What is kept gives its holder the region for writing: as kvd itself, be opaque.
	(void)prctl(PR_SET_DUMPABLE, 0);
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	struct fdstore *inherited = fdstore_create(s->seam);
	int error = keeper_create(&s->keeper, s->seam, inherited);
	fdstore_destroy(inherited);
	if (error != 0) {
		return error;
	}
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll_fd < 0) {
		return -errno;
	}
	error = supervise_watch(s, keeper_fd(s->keeper));
	return error != 0 ? error : supervise_signals(s);
}

static void supervise_close(struct supervise *s)
{
	keeper_destroy(s->keeper);
	if (s->epoll_fd >= 0) {
		(void)close(s->epoll_fd);
	}
	if (s->signals_fd >= 0) {
		(void)close(s->signals_fd);
		(void)sigaction(SIGCHLD, &s->child_before, NULL);
		(void)sigprocmask(SIG_SETMASK, &s->signals_before, NULL);
	}
}

/// Whose watchdog is the outer manager's, if there is one: the child's.
static bool supervise_hand_watchdog(pid_t parent)
{
	char number[32];
	const char *pid = getenv("WATCHDOG_PID");
	(void)snprintf(number, sizeof(number), "%d", (int)parent);
	if (pid == NULL || strcmp(pid, number) != 0) {
		return true;
	}
	(void)snprintf(number, sizeof(number), "%d", (int)getpid());
	return setenv("WATCHDOG_PID", number, 1) == 0;
}

/// The child's way to its program.
__attribute__((noreturn)) static void supervise_become_child(const struct supervise *s,
							     pid_t parent)
{
	char path[PATH_MAX];
	// SIGTERM: what can be made durable is, though nobody is left to start it again.
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent) { // died meanwhile, before it could have had an effect
		_exit(EX_TEMPFAIL);
	}
	int error = keeper_hand_over(s->keeper);
	if (error == 0 && !supervise_hand_watchdog(parent)) {
		error = -ENOMEM;
	}
	sigset_t taken, mask; // what was sent since the fork waits on until the program can obey it
	signals_taken(&taken);
	(void)sigorset(&mask, &s->signals_before, &taken);
	if (error == 0 && (sigaction(SIGCHLD, &s->child_before, NULL) != 0 ||
			   sigprocmask(SIG_SETMASK, &mask, NULL) != 0)) {
		error = -errno;
	}
	if (error == 0) {
		(void)execv(self_program(path, sizeof(path)), s->arguments);
		(void)execv(SELF_PROGRAM_LINK, s->arguments);
		error = -errno;
	}
	log_error("supervise: cannot run %s: %s; %s", SELF_PROGRAM_LINK, strerror(-error),
		  error == -ENOENT ? "mount /proc (mount -t proc proc /proc)"
				   : remedy_of_errno(-error));
	_exit(EX_OSERR);
}

/// One more death: when to start again. Says so as the end of a sentence.
static void supervise_plan(struct supervise *s, char *out, size_t bytes)
{
	uint64_t now_ns = s->seam->monotonic_ns();
	s->deaths = now_ns - s->started_ns >= SUPERVISE_LIVED_NS ? 1 : s->deaths + 1;
	uint64_t delay_ms = supervise_delay_ms(s->deaths);
	s->start_at_ns = now_ns + delay_ms * UINT64_C(1000000);
	if (delay_ms == 0) {
		(void)snprintf(out, bytes, "starts again at once");
	} else {
		(void)snprintf(out, bytes, "starts again in %llu ms", (unsigned long long)delay_ms);
	}
}

static void supervise_start(struct supervise *s)
{
	pid_t parent = getpid();
	s->started_ns = s->seam->monotonic_ns(); // before it: its life begins no earlier
	pid_t child = fork();
	if (child == 0) {
		supervise_become_child(s, parent);
	}
	s->heard = 0;
	s->last += s->told;
	if (child < 0) {
		int error = errno;
		char when[64];
		s->code = EX_OSERR;
		supervise_plan(s, when, sizeof(when));
		LOG_AT(LOG_LEVEL_ERROR, "supervise: no process for kvd: %s; %s; it %s",
		       strerror(error), remedy_of_errno(error), when);
		s->over = s->told && s->last >= SUPERVISE_LAST_MAX;
		return;
	}
	s->child = child;
	keeper_listen_to(s->keeper, child);
	if (s->told && kill(child, SIGTERM) != 0) { // it obeys when it serves
		log_warning("supervise: cannot ask process %d to stop: %s", (int)child,
			    strerror(errno));
	}
}

static void supervise_hear(struct supervise *s)
{
	s->heard |= keeper_hear(s->keeper);
}

/// How it ended, as half a sentence.
static void supervise_describe(int status, char *out, size_t bytes)
{
	if (WIFSIGNALED(status)) {
		(void)snprintf(out, bytes, "was killed by signal %d (%s)%s", WTERMSIG(status),
			       strsignal(WTERMSIG(status)),
			       WCOREDUMP(status) ? ", core dumped" : "");
	} else {
		(void)snprintf(out, bytes, "ended with exit code %d", WEXITSTATUS(status));
	}
}

/// Why a child that did not end in order is the last.
static void supervise_say_over(const struct supervise *s, const struct supervise_end *end, int pid,
			       const char *how)
{
	bool stopped = WIFEXITED(end->status) && end->stopping;
	if (end->told && end->keeps && !stopped) {
		log_error("supervise: kvd (process %d) %s; asked to stop, it was started %u times "
			  "and came to no end in order: what only memory had is lost",
			  pid, how, end->last);
	} else if (s->code != 0) {
		LOG_AT(LOG_LEVEL_NOTICE,
		       "supervise: kvd (process %d) %s, and is not started again: %s", pid, how,
		       end->told       ? "a signal asked to stop"
		       : end->stopping ? "it was stopping"
				       : "what its last line says must be changed first");
	}
}

static void supervise_bury(struct supervise *s, int status)
{
	const struct supervise_end end = { .status = status,
					   .told = s->told,
					   .stopping = (s->heard & KEEPER_HEARD_STOPPING) != 0,
					   .ready = (s->heard & KEEPER_HEARD_READY) != 0,
					   .keeps = keeper_count(s->keeper) > 0,
					   .last = s->last };
	char how[128];
	int pid = (int)s->child;
	supervise_describe(status, how, sizeof(how));
	s->child = 0;
	keeper_listen_to(s->keeper, 0);
	s->code = supervise_code(status);
	if (!supervise_again(&end)) {
		s->over = true;
		supervise_say_over(s, &end, pid, how);
		return;
	}
	char when[64];
	supervise_plan(s, when, sizeof(when));
	LOG_AT(LOG_LEVEL_WARNING,
	       "supervise: kvd (process %d) %s and %s; descriptors kept: %zu, messages of "
	       "strangers "
	       "ignored: %llu",
	       pid, how, when, keeper_count(s->keeper),
	       (unsigned long long)keeper_strangers(s->keeper));
	notify_status("kvd %s and %s", how, when);
}

/// Waits for all that ended: the child, and orphans that came to this process.
static void supervise_reap(struct supervise *s)
{
	for (;;) {
		siginfo_t info = { .si_pid = 0 };
		int status;
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) {
			return;
		}
		bool own = info.si_pid == s->child;
		if (own) {
			supervise_hear(s); // to its last word
		}
		if (waitpid(info.si_pid, &status, 0) == info.si_pid && own) {
			supervise_bury(s, status);
		}
	}
}

/// The supervisor is asked to stop. What a kept region alone has is made durable by a last child.
static void supervise_tell(struct supervise *s)
{
	bool first = !s->told;
	s->told = true;
	s->deaths = first ? 0 : s->deaths; // those before the request are another matter
	if (s->child != 0) {
		return;
	}
	if (keeper_count(s->keeper) == 0) {
		LOG_AT(LOG_LEVEL_NOTICE, "supervise: ends while kvd is down; nothing is kept");
		s->over = true;
	} else if (first) {
		LOG_AT(LOG_LEVEL_NOTICE, "supervise: asked to stop while kvd is down: it is "
					 "started once more, to make durable what is kept");
		s->start_at_ns = s->seam->monotonic_ns();
	}
}

static void supervise_forward(struct supervise *s, int signal, bool everybody)
{
	if (signal == SIGHUP && everybody) { // the terminal is gone
		signal = SIGTERM;
		everybody = false;
	}
	if (signal == SIGTERM || signal == SIGINT) {
		supervise_tell(s);
	}
	// A key of the terminal is a signal to the child too.
	if (s->child != 0 && !everybody && kill(s->child, signal) != 0) {
		log_warning("supervise: cannot pass on signal %d: %s", signal, strerror(errno));
	}
}

static void supervise_take_signals(struct supervise *s)
{
	struct signalfd_siginfo info;
	while (!s->over &&
	       s->seam->read(s->signals_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGCHLD) {
			supervise_reap(s);
		} else {
			supervise_forward(s, (int)info.ssi_signo, info.ssi_code == SI_KERNEL);
		}
	}
}

/// Until when nothing need be done, in ms as epoll_wait() wants it.
static int supervise_wait_ms(const struct supervise *s)
{
	uint64_t now_ns = s->seam->monotonic_ns();
	if (s->child != 0) {
		return -1;
	}
	return now_ns >= s->start_at_ns ? 0 : (int)((s->start_at_ns - now_ns + 999999) / 1000000);
}

static int supervise_turn(struct supervise *s)
{
	struct epoll_event events[2];
	if (s->seam->epoll_wait(s->epoll_fd, events, 2, supervise_wait_ms(s)) < 0 &&
	    errno != EINTR) {
		return -errno;
	}
	supervise_hear(s);
	supervise_take_signals(s);
	if (!s->over && s->child == 0 && s->seam->monotonic_ns() >= s->start_at_ns) {
		supervise_start(s);
	}
	return 0;
}

int supervise_run(const struct seam *seam, char *const arguments[])
{
	struct supervise s = {
		.seam = seam, .arguments = arguments, .epoll_fd = -1, .signals_fd = -1
	};
	int error = supervise_open(&s);
	while (error == 0 && !s.over) {
		error = supervise_turn(&s);
	}
	if (error != 0) {
		LOG_AT(LOG_LEVEL_ERROR, "supervise: %s; %s", strerror(-error),
		       remedy_of_errno(-error));
		s.code = EX_OSERR;
	}
	if (s.keeper != NULL && keeper_strangers(s.keeper) > 0) {
		LOG_AT(LOG_LEVEL_NOTICE, "supervise: messages of strangers ignored: %llu",
		       (unsigned long long)keeper_strangers(s.keeper));
	}
	supervise_close(&s);
	return s.code;
}
