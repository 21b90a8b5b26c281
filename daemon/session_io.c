// SPDX-License-Identifier: MIT
//
// A session's buffers and its socket. Standard buffers are lent from a small pool only while
// something is in them: a turn's sessions use the same warm memory one after the other, and ten
// thousand idle connections hold none. Whatever is larger, or larger than all together may be, is
// refused before it is allocated.

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/refuse.h"
#include "daemon/seam.h"
#include "daemon/session_intake.h"
#include "daemon/session_parts.h"
#include "daemon/session_push.h"
#include "daemon/session_refs.h"

#define SESSION_BIG_FIRST_BYTES (256u << 10)
#define SESSION_RESERVE_TIMES 256u	  // a large input may grow so much where it is
#define SESSION_IO_BYTES_MAX (256u << 10) // of one read, or sent in one turn: 100 us of copying

static char *session_buffer_take(struct session *session)
{
	struct session_shared *shared = session->shared;
	if (!session_charge(session, SESSION_BUFFER_BYTES)) {
		return NULL;
	}
	if (shared->spares_count > 0) {
		return shared->spares[--shared->spares_count];
	}
	char *buffer = malloc(SESSION_BUFFER_BYTES);
	if (!buffer) {
		session_uncharge(session, SESSION_BUFFER_BYTES);
		session_kill(session, "out of memory");
	}
	return buffer;
}

void session_buffer_give(struct session *session, char *buffer, size_t bytes)
{
	struct session_shared *shared = session->shared;
	if (!buffer) {
		return;
	}
	session_uncharge(session, bytes);
	if (bytes == SESSION_BUFFER_BYTES && shared->spares_count < SESSION_SPARES_MAX) {
		shared->spares[shared->spares_count++] = buffer;
	} else {
		reclaim_free(&shared->reclaim, buffer, bytes);
	}
}

/// Another size for a buffer whose first `used` bytes count. NULL = not possible, the old one
/// stays.
static char *session_buffer_resize(struct session *session, char *buffer, size_t bytes,
				   size_t new_bytes, size_t used)
{
	if (bytes != SESSION_BUFFER_BYTES && new_bytes > bytes) {
		// Large ones grow in place where the page tables allow it: no copy.
		if (!session_charge(session, new_bytes - bytes)) {
			return NULL;
		}
		char *grown = realloc(buffer, new_bytes);
		if (!grown) {
			session_uncharge(session, new_bytes - bytes);
			session_kill(session, "out of memory");
		}
		return grown;
	}
	if (!session_charge(session, new_bytes)) {
		return NULL;
	}
	char *other = malloc(new_bytes);
	if (!other) {
		session_uncharge(session, new_bytes);
		session_kill(session, "out of memory");
		return NULL;
	}
	memcpy(other, buffer, used);
	session_buffer_give(session, buffer, bytes);
	return other;
}

/// Another size for the input. It is parsed while it comes, and moving it costs as much as it has
/// arguments: a large buffer has room to grow where it is, which is neither touched nor charged.
static char *session_input_resize(struct session *session, size_t bytes)
{
	if (!session_charge(session, bytes - session->input_bytes)) {
		return NULL;
	}
	if (session->input_reserved >= bytes) {
		return session->input;
	}
	size_t most = session->shared->limits.request_bytes_max + SESSION_BUFFER_BYTES;
	size_t reserve =
		bytes < most / SESSION_RESERVE_TIMES ? bytes * SESSION_RESERVE_TIMES : most;
	reserve = reserve > bytes ? reserve : bytes;
	char *input = realloc(session->input, reserve);
	if (!input) {
		reserve = bytes;
		input = realloc(session->input, reserve);
	}
	if (!input) {
		session_uncharge(session, bytes - session->input_bytes);
		session_kill(session, "out of memory");
		return NULL;
	}
	session->input_reserved = reserve;
	return input;
}

/// Moves what is not consumed to the front of the buffer.
static void session_input_compact(struct session *session)
{
	size_t used = session->input_end - session->input_start;
	if (session->input_start == 0) {
		return;
	}
	memmove(session->input, session->input + session->input_start, used);
	resp_request_moved(&session->parse, &session->partial,
			   session->input + session->input_start, session->input);
	session->input_start = 0;
	session->input_end = used;
}

/// The next size of a full input buffer.
static size_t session_input_next_bytes(const struct session *session)
{
	size_t bytes = session->input_bytes;
	if (session->input_wanted <= bytes + SESSION_BUFFER_BYTES) {
		// Many small arguments: in proportion, the hint reaches to the next line only.
		size_t step = bytes / 4;
		return bytes + (step > SESSION_BIG_FIRST_BYTES ? step : SESSION_BIG_FIRST_BYTES);
	}
	size_t doubled = bytes * 2 > SESSION_BIG_FIRST_BYTES ? bytes * 2 : SESSION_BIG_FIRST_BYTES;
	return doubled < session->input_wanted ? doubled : session->input_wanted;
}

/// Makes room behind the input, as much as the half frame wants but never all of a large
/// announcement at once: memory follows the bytes that really came.
static bool session_input_room(struct session *session)
{
	if (!session->input) {
		session->input = session_buffer_take(session);
		if (!session->input) {
			return false;
		}
		session->input_bytes = SESSION_BUFFER_BYTES;
		session->input_start = session->input_end = session->input_reserved = 0;
	}
	if (session->input_start == session->input_end) {
		session->input_start = session->input_end = 0;
	}
	bool fits = session->input_bytes - session->input_start >= session->input_wanted;
	if (!fits || session->input_end == session->input_bytes) {
		session_input_compact(session);
	}
	if (session->input_end < session->input_bytes) {
		return true;
	}
	size_t bytes = session_input_next_bytes(session);
	char *input = session_input_resize(session, bytes);
	if (!input) {
		return false;
	}
	resp_request_moved(&session->parse, &session->partial, session->input, input);
	session->input = input;
	session->input_bytes = bytes;
	return true;
}

void session_input_trim(struct session *session)
{
	if (!session->input) {
		return;
	}
	size_t used = session->input_end - session->input_start;
	if (used == 0) {
		session_buffer_give(session, session->input, session->input_bytes);
		session->input = NULL;
		session->input_bytes = session->input_start = session->input_end = 0;
		session->input_reserved = 0;
		return;
	}
	if (session->input_bytes <= SESSION_BUFFER_BYTES || used > SESSION_BUFFER_BYTES / 2 ||
	    session->input_wanted > SESSION_BUFFER_BYTES) {
		return;
	}
	char *small = session_buffer_take(session);
	if (!small) {
		return;
	}
	memcpy(small, session->input + session->input_start, used);
	resp_request_moved(&session->parse, &session->partial,
			   session->input + session->input_start, small);
	session_buffer_give(session, session->input, session->input_bytes);
	session->input = small;
	session->input_reserved = 0;
	session->input_bytes = SESSION_BUFFER_BYTES;
	session->input_start = 0;
	session->input_end = used;
}

enum session_read_result session_receive(struct session *session, void *at, size_t bytes,
					 size_t *came)
{
	struct iovec piece = { .iov_base = at, .iov_len = bytes };
	// No room for control data: the kernel drops descriptors that a client sends, and says so.
	struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
	ssize_t n = session->kvd->seam->recvmsg(session->source.fd, &message, MSG_DONTWAIT);
	*came = 0;
	if (n < 0) {
		if (errno == EINTR) {
			return SESSION_READ_MORE; // it may not be told again
		}
		if (errno != EAGAIN) {
			session->hung_up = true; // reset: quiet, it is the client's business
			session->input_ended = true;
		}
		return SESSION_READ_NOTHING;
	}
	if (message.msg_flags & MSG_CTRUNC) {
		refuse(session, REFUSAL_DESCRIPTORS,
		       "kvd takes no descriptors, credentials or other control data; the program "
		       "must send requests only");
		session_kill(session, NULL);
		return SESSION_READ_NOTHING;
	}
	if (n == 0) {
		session->input_ended = true;
		return SESSION_READ_NOTHING;
	}
	*came = (size_t)n;
	session->active_ns = loop_now_ns(session->kvd->loop);
	session_count_up(session->shared, KVS_COUNTER_input_bytes, (uint64_t)n);
	// The end of the input is told once, and only a read that finds nothing else shows it.
	return (size_t)n == bytes || session->shut ? SESSION_READ_MORE : SESSION_READ_SHORT;
}

enum session_read_result session_read(struct session *session)
{
	if (__builtin_expect(session_intake_is_due(session), 0) && session_intake_begin(session)) {
		return session_intake_read(session);
	}
	if (session->dead || !session_input_room(session)) {
		return SESSION_READ_NOTHING;
	}
	size_t bytes = session->input_bytes - session->input_end;
	bytes = bytes < SESSION_IO_BYTES_MAX ? bytes : SESSION_IO_BYTES_MAX;
	size_t came;
	enum session_read_result result =
		session_receive(session, session->input + session->input_end, bytes, &came);
	session->input_end += came;
	return result;
}

bool session_output_fits(struct session *session, size_t bytes)
{
	uint64_t limit = session->kvd->config.output_bytes_max;
	size_t unsent = session_output_used(session);
	if (unsent + bytes <= limit && unsent + bytes >= bytes) {
		return true;
	}
	refuse(session, REFUSAL_OUTPUT,
	       "it does not read its replies: %zu bytes wait, limit %llu (client-output-max); read "
	       "them, or raise that",
	       unsent, (unsigned long long)limit);
	session_kill(session, NULL);
	return false;
}

bool session_output_grow(struct session *session, size_t bytes)
{
	if (session->dead) {
		return false;
	}
	if (!session->output) {
		session->output = session_buffer_take(session);
		if (!session->output) {
			return false;
		}
		session->output_bytes = SESSION_BUFFER_BYTES;
		if (bytes <= SESSION_BUFFER_BYTES) {
			return true;
		}
	}
	if (!session_output_fits(session, bytes)) {
		return false;
	}
	size_t want = session->output_end + bytes;
	size_t new_bytes = session->output_bytes * 2;
	new_bytes = new_bytes > want ? new_bytes : want;
	char *output = session_buffer_resize(session, session->output, session->output_bytes,
					     new_bytes, session->output_end);
	if (!output) {
		return false;
	}
	session->output = output;
	session->output_bytes = new_bytes;
	return true;
}

void session_output_replace(struct session *session, char *output, size_t bytes, size_t end)
{
	session_buffer_give(session, session->output, session->output_bytes);
	session->output_position += session->output_sent;
	session->frame_start = 0; // positions behind it may have moved
	session->output = output;
	session->output_bytes = bytes;
	session->output_sent = 0;
	session->output_end = end;
}

void session_fds_close(struct session *session)
{
	for (unsigned i = 0; i < session->fds_count; i++) {
		close(session->fds[i]);
	}
	session->fds_count = 0;
}

/// One sendmsg, with the descriptors if `with_fds`.
static ssize_t session_send_pieces(struct session *session, struct iovec *pieces, size_t count,
				   bool with_fds)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * SESSION_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct msghdr message = { .msg_iov = pieces, .msg_iovlen = count };
	if (with_fds) {
		memset(&control, 0, sizeof(control));
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * session->fds_count);
		struct cmsghdr *head = CMSG_FIRSTHDR(&message);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(sizeof(int) * session->fds_count);
		memcpy(CMSG_DATA(head), session->fds, sizeof(int) * session->fds_count);
	}
	ssize_t n = session->kvd->seam->sendmsg(session->source.fd, &message,
						MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0 && with_fds) {
		session_fds_close(session);
	}
	return n;
}

/// Drops what was sent; the buffer goes back when it is empty. What is left of a large one is moved
/// only when that is little: then it is done once.
static void session_output_trim(struct session *session)
{
	if (session->output_sent == session->output_end) {
		session->output_position += session->output_end;
		session_buffer_give(session, session->output, session->output_bytes);
		session->output = NULL;
		session->output_bytes = session->output_sent = session->output_end = 0;
	} else if (session->output_sent > session->output_bytes / 2 &&
		   session->output_end - session->output_sent <= SESSION_IO_BYTES_MAX) {
		size_t unsent = session->output_end - session->output_sent;
		memmove(session->output, session->output + session->output_sent, unsent);
		session->output_position += session->output_sent;
		session->output_sent = 0;
		session->output_end = unsent;
	}
}

static void session_send_failed(struct session *session)
{
	if (errno == EAGAIN || errno == EINTR) {
		session->output_full = true;
		return;
	}
	if (errno == ETOOMANYREFS) {
		refuse(session, REFUSAL_FLIGHT,
		       "the kernel passes no more descriptors of kvd's user (%u): end what else "
		       "runs as that user, or raise the limit (LimitNOFILE=, ulimit -n)",
		       (unsigned)geteuid());
		session_kill(session, NULL);
		return;
	}
	if (errno == ENOMEM || errno == ENOBUFS) {
		session_kill(session, "the system has no memory to send to it");
		return;
	}
	session->output_broken = true; // EPIPE, ECONNRESET: quiet
}

/// Sends one piece, and the part behind it that stands elsewhere; at most `most` bytes, in front of
/// `limit` in the output. Returns how much went; output_full is set if the socket takes no more.
static size_t session_send_some(struct session *session, size_t limit, size_t most)
{
	size_t end = limit;
	bool with_fds = false;
	struct session_ref *ref = session_refs_next(session);
	size_t ref_at = ref ? (size_t)(ref->position - session->output_position) : SIZE_MAX;
	end = end < ref_at ? end : ref_at;
	if (session->fds_count > 0) {
		size_t at = (size_t)(session->fds_position - session->output_position);
		size_t stop = (size_t)(session->fds_end - session->output_position);
		with_fds = session->output_sent == at;
		size_t bound = with_fds ? stop : at;
		end = bound < end ? bound : end;
	}
	struct iovec pieces[2] = { { session->output + session->output_sent,
				     end - session->output_sent } };
	pieces[0].iov_len = pieces[0].iov_len < most ? pieces[0].iov_len : most;
	size_t plain = pieces[0].iov_len;
	if (end == ref_at && end < limit && (plain == 0 || session->fds_count == 0)) {
		size_t left = most - plain;
		pieces[1] = (struct iovec){ (void *)(uintptr_t)ref->data,
					    ref->bytes < left ? ref->bytes : left };
	}
	size_t first = plain > 0 ? 0 : 1;
	ssize_t n = session_send_pieces(session, &pieces[first], 2 - first, with_fds);
	if (n < 0) {
		session_send_failed(session);
		return 0;
	}
	session_count_up(session->shared, KVS_COUNTER_output_bytes, (uint64_t)n);
	session->output_full = (size_t)n < plain + pieces[1].iov_len;
	plain = (size_t)n < plain ? (size_t)n : plain;
	session->output_sent += plain;
	if ((size_t)n > plain) {
		session_refs_sent(session, (size_t)n - plain);
	}
	return (size_t)n;
}

void session_send(struct session *session)
{
	// While it sleeps, or what it said is on its way, it is not answered either. A command that
	// waits for a thread has not answered yet: what came before it is sent.
	bool quiet = (session->is_awaiting && !session->is_early) ||
		     (session->is_resting && session->rest_until_ns != 0 && !session->task);
	size_t limit = quiet ? session->output_sent
			     : (size_t)(session_sendable(session) - session->output_position);
	size_t most = SESSION_IO_BYTES_MAX;
	session->output_full = false;
	while (session->output_sent < limit && !session->output_broken && !session->dead &&
	       !session->output_full) {
		most -= session_send_some(session, limit, most);
		if (most == 0) {
			session->output_full = true; // others first; the socket says when to go on
		}
	}
	if (session->output_broken) {
		session_fds_close(session);
		session_refs_free(session);
		session_hold_free(session);
		session->output_sent = session->output_end;
	}
	session_output_trim(session);
	if (__builtin_expect(session->is_soft, 0)) {
		session_push_sent(session);
	}
	bool done = session->output_end == 0;
	if (session->hung_up && session->input_ended && !session->is_ready) {
		done = true; // nobody is there to read the rest
	}
	session->pushed_bytes = done ? 0 : session->pushed_bytes;
	if (done && !session->is_parked && !session->is_ready && !session->is_resting &&
	    !session->is_awaiting && (session->close_after_reply || session->input_ended)) {
		session_kill(session, NULL);
	}
	session_update_interest(session);
}

void session_update_interest(struct session *session)
{
	if (session->dead) {
		return;
	}
	bool reads = session_may_run(session) && !session->input_ended;
	uint32_t events =
		(reads ? SESSION_READS : 0) | (session->output_full ? SESSION_SENDS : SESSION_ONCE);
	if (loop_modify(session->kvd->loop, &session->source, events) != 0) {
		session_kill(session, "epoll refuses its socket");
	}
}

void session_io_free(struct session *session)
{
	session_fds_close(session);
	session_refs_free(session);
	session_buffer_give(session, session->input, session->input_bytes);
	session_buffer_give(session, session->output, session->output_bytes);
	session->input = session->output = NULL;
}
