/* SPDX-License-Identifier: MIT
 *
 * A connection breaks while its process lives on: kvd marks the reader page DETACHED, and forgets
 * the page once no slot on it is inside a section. The reader looks at the mark after it announced
 * itself. Each side stores one word and then loads the other's (Dekker's pattern), so the barrier
 * between the two, the reader's own or kvd's membarrier, decides everything.
 *
 *   B  no section believes bytes that kvd freed after it had forgotten the page.
 *
 *   MUTANT_NO_MEMBARRIER   kvd does not order its mark against its look at the slots
 *   MUTANT_MARK_FIRST      the reader looks at the mark before it announces itself
 *   MUTANT_DROP_AT_ONCE    kvd forgets the page although a section is open
 */
#define NONE 0
#define INSIDE 1
#define SECTIONS 2

bit detached = 0;
bit forgotten = 0;
bit freed = 0;
byte slot = NONE;
chan buffer = [2] of { byte };

active proctype store_buffer()
{
	byte value;
end:
	do
	:: atomic { buffer?value -> slot = value }
	od
}

active proctype reader()
{
	byte i;
	bit mark, garbage;
	for (i : 1 .. SECTIONS) {
#ifdef MUTANT_MARK_FIRST
		mark = detached;
		buffer!INSIDE;
#ifdef FENCED
		empty(buffer);
#endif
#else
		buffer!INSIDE;
#ifdef FENCED
		empty(buffer);
#endif
		mark = detached;
#endif
		if
		:: mark   /* attach again; this section reads nothing */
		:: else ->
			garbage = freed;
			assert(!garbage)
		fi;
		buffer!NONE
	}
}

active proctype daemon()
{
	detached = 1;
#if !defined(FENCED) && !defined(MUTANT_NO_MEMBARRIER)
	empty(buffer);
#endif
#ifndef MUTANT_DROP_AT_ONCE
	slot == NONE;
#endif
	forgotten = 1;
	freed = 1
}
