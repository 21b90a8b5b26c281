// SPDX-License-Identifier: MIT
//
// The only ways to touch a word that two threads or two processes share. Each helper is a thin name
// over the compiler's builtin, so that ThreadSanitizer follows it and so that a reader of the code
// can ask "who is the partner?": every call site names it in a comment, and the pairs are listed in
// shm/LAYOUT.md. Plain loads, stores and `volatile` never synchronise anything here.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// Load-acquire: what the partner wrote before its release store of this word is visible after.
static inline uint64_t kvs_load_acquire(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/// The same for a 32-bit word.
static inline uint32_t kvs_load_acquire_32(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/// Relaxed load: one untorn read, no order. For own words, hints and counters.
static inline uint64_t kvs_load_relaxed(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/// The same for a 32-bit word.
static inline uint32_t kvs_load_relaxed_32(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/// Store-release: publishes everything written before it to whoever load-acquires this word.
static inline void kvs_store_release(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/// The same for a 32-bit word.
static inline void kvs_store_release_32(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/// Relaxed store: one untorn write, no order.
static inline void kvs_store_relaxed(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

/// A store with a full fence behind it, for readers that may not rely on the writer's membarrier.
/// An exchange would not do: on arm64 later loads may pass its store.
static inline void kvs_store_fenced(uint64_t *word, uint64_t value)
{
#ifndef KVS_TSAN // which follows an exchange, but not a bare fence
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#else
	(void)__atomic_exchange_n(word, value, __ATOMIC_SEQ_CST);
#endif
}

/// Replaces `expected` by `value` if it still stands there; a full barrier. True if it did.
static inline bool kvs_compare_exchange(uint64_t *word, uint64_t expected, uint64_t value)
{
	return __atomic_compare_exchange_n(word, &expected, value, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_SEQ_CST);
}

/// Single-writer counter: load and store, no lock prefix. Only the owner of the word may call it.
static inline void kvs_count(uint64_t *word, uint64_t by)
{
	kvs_store_relaxed(word, kvs_load_relaxed(word) + by);
}

/// Counts down a word that several threads count down; returns what is left. No order.
static inline uint64_t kvs_count_down(uint64_t *word)
{
	return __atomic_sub_fetch(word, 1, __ATOMIC_RELAXED);
}

/// Earlier loads complete before later loads and stores (no instruction on x86-64).
static inline void kvs_fence_acquire(void)
{
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
}

/// Full fence.
static inline void kvs_fence_full(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/// Keeps the compiler, not the machine, from moving memory accesses across. Pairs with membarrier.
static inline void kvs_barrier_compiler(void)
{
	__asm__ volatile("" ::: "memory");
}
