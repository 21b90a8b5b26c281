/* SPDX-License-Identifier: MIT
 *
 * One reader, one writer, and memory that is used again: the protocol of shm/epoch.h against
 * shm/epoch_scan.h. The reader announces its epoch with a plain store that may wait in a store
 * buffer (total store order), reads the published object, looks whether it was revoked, and
 * leaves. The writer replaces the object, stamps the old one, opens a new epoch, issues its
 * barrier and frees what no slot holds back. The claims:
 *
 *   B  a section never believes bytes of an object that was freed under it;
 *   B  a section that began after a revocation is not hit by it (revocation is exact).
 *
 * Each mutant below leaves out one thing the protocol asks for; tests/model/check_models.py demands
 * that every one of them is caught, so that the model is known to see what it claims to see.
 *
 *   FENCED            the reader's announcement is a full barrier and the writer has no membarrier
 *   REVOKE            the writer may take memory back from an open section
 *   MUTANT_*          see the script
 */
#define UPDATES 2
#define SECTIONS 2
#define NONE 0
#define FLAGGED 255

byte published = 0;              /* which object the table names */
byte epoch = 1;                  /* the hot line's epoch word */
byte slot = NONE;                /* the reader's announcement as others see it */
byte revoked_upto = NONE;
bit freed[UPDATES + 1];          /* the object's memory has been used for something else */
chan buffer = [3] of { byte };   /* stores of the reader that nobody has seen yet */
/* a load that was allowed to overtake the epoch load is in flight */
bit load_pending = 0;

byte revocations = 0;            /* ghost: how many there were */
bit flag_revoked = 0;            /* only for the mutants that use a flag instead of an epoch */

/* The kernel's membarrier: returns once the reader's stream has passed a full barrier. */
inline membarrier()
{
#if defined(FENCED) || defined(MUTANT_NO_MEMBARRIER)
	skip
#else
	empty(buffer) && !load_pending
#endif
}

active proctype store_buffer()
{
	byte value;
end:
	do
	:: atomic { buffer?value -> slot = value }
	od
}

/* Opens a section: epoch first, then the announcement, then the object. */
inline enter()
{
	seen = revocations;
#ifdef MUTANT_EPOCH_NOT_ACQUIRED
	if
	:: announced = epoch; buffer!announced; object = published
	:: atomic { load_pending = 1; object = published };
	   announced = epoch;
	   atomic { buffer!announced; load_pending = 0 }
	fi
#else
	announced = epoch;
	buffer!announced;
#if defined(FENCED) && !defined(MUTANT_NO_FENCE)
	empty(buffer);
#endif
	object = published
#endif
}

inline check()
{
#if defined(MUTANT_FLAG_PER_SCAN) || defined(MUTANT_FLAG_STICKY)
	refused = flag_revoked
#elif defined(MUTANT_FLAG_IN_WORD)
	empty(buffer);
	refused = (slot == FLAGGED)
#else
	refused = (announced <= revoked_upto)
#endif
}

active proctype reader()
{
	byte announced, object, seen, i;
	bit garbage, refused;
	for (i : 1 .. SECTIONS) {
		enter();
#if defined(MUTANT_CHECK_BEFORE_USE)
		check();
		garbage = freed[object];
#elif defined(MUTANT_NO_FENCE_BEFORE_CHECK)
		if  /* without the acquire fence the check may be performed before the data loads */
		:: check(); garbage = freed[object]
		:: garbage = freed[object]; check()
		fi;
#elif defined(MUTANT_LEAVE_RELAXED)
		if  /* without release the slot may read inactive before the data was loaded */
		:: buffer!NONE; garbage = freed[object]; check(); goto left
		:: garbage = freed[object]; check()
		fi;
#else
		if
		:: skip
		:: buffer!announced     /* a nested section stores to the word once more */
		fi;
		garbage = freed[object];
		check();
#endif
		buffer!NONE;
left:
		assert(!garbage || refused);
		/* Exact: nothing was revoked since this section began: no refusal. */
		assert(!refused || seen != revocations);
		garbage = 0;
		refused = 0
	}
}

/* Decides about the object stamped `stamp`: waits for the slot, or revokes it. */
inline reclaim()
{
#ifdef MUTANT_FLAG_PER_SCAN
	flag_revoked = 0;
#endif
#ifndef MUTANT_FREE_BEFORE_SCAN
	do
	:: announced = slot;
	   if
#ifdef MUTANT_STAMP_OFF_BY_ONE
	   :: announced == NONE || announced >= stamp -> break
#else
	   :: announced == NONE || announced > stamp -> break
	   :: announced != NONE && announced <= revoked_upto -> break  /* refused already */
#endif
	   :: else ->
#ifdef REVOKE
		if
		:: skip
		:: atomic {
#ifdef MUTANT_FLAG_IN_WORD
			slot = FLAGGED;
#endif
			revoked_upto = announced;
			flag_revoked = 1;
			revocations++
		   }
		   break
		fi
#else
		skip
#endif
	   fi
	od;
#endif
	freed[old] = 1
}

active proctype writer()
{
	byte old, stamp, announced, n;
	for (n : 1 .. UPDATES) {
		old = published;
		stamp = epoch;
#ifdef MUTANT_BUMP_BEFORE_UNLINK
		epoch = epoch + 1;
		published = n;
#else
		published = n;
#ifdef SECOND_MEMBARRIER
		membarrier();
#endif
		epoch = epoch + 1;
#endif
		membarrier();
		reclaim()
	}
}
