/* SPDX-License-Identifier: MIT
 *
 * The table is rebuilt under another hash key while a reader looks for a key: shm/table_reseed.c
 * against shm/table_find.c, one shared word at a time. The table has two sides with a hash key
 * each; the one that does not serve is filled bucket by bucket while the other changes, and one
 * store of the root publishes it. All interleavings of OPERATIONS steps of the writer with one
 * search are explored. Growth is another model (table.pml): there is none during a rebuild.
 *
 *   A  a key that is there is never missed, and no value older than one acknowledged before the
 *      search began is returned.
 *
 * Key B is searched for. A side has two buckets of one entry; its hash key says which of them is
 * B's. The reader begins with a hash that it has kept from any time.
 *
 *   MUTANT_NO_MIRROR     a change of a bucket that was copied is made on the serving side alone
 *   MUTANT_PUBLISH_EARLY the root is published when half of the buckets are copied
 *   MUTANT_BELIEVE_HASH  a miss is believed with whatever hash led to it
 *   MUTANT_ONE_KEY       both sides share one word for the hash key
 *   MUTANT_KEY_LATE      the hash key of a side is written after its root
 *   MUTANT_REUSE_AT_ONCE a side is filled again without a grace period
 *   MUTANT_ACK_FIRST     a write is acknowledged before it is on the side that serves next
 */
#ifndef OPERATIONS
#define OPERATIONS 7
#endif
#define EMPTY 0
#define RETRIES (OPERATIONS + 4)

byte entry[4];                   /* of side s and bucket h: a version of B */
bit key[2];                      /* of each side: the bucket that B hashes to */
bit side = 0;                    /* these two are the root word: one load, one store */
byte turns = 0;
bit stale = 0;                   /* the other side holds what readers may still be looking at */
bit inside = 0;                  /* the reader is in its section */

/* ghost */
byte version = 1;
byte acknowledged = 1;
bit present = 1;
bit was_absent = 0;              /* B was away at some moment of the search */

#define PLACE(s, h) ((s) * 2 + (h))
#define OTHER (1 - side)

inline mirror(what)
{
#ifndef MUTANT_NO_MIRROR
	if
	:: running && key[side] < copied -> entry[PLACE(OTHER, fresh)] = what
	:: else -> skip
	fi
#else
	skip
#endif
}

active proctype writer()
{
	byte done, copied;
	bit running, fresh;
	if
	:: key[0] = 0
	:: key[0] = 1
	fi;
	d_step { entry[PLACE(0, key[0])] = 1; inside = 1 }
	for (done : 1 .. OPERATIONS) {
		if
		/* begins: the other side is free, and gets a hash key */
		:: !running && (!stale ||
#ifdef MUTANT_REUSE_AT_ONCE
			       1
#else
			       !inside
#endif
			       ) ->
			d_step { stale = 0; copied = 0; running = 1 }
			entry[PLACE(OTHER, 0)] = EMPTY;
			entry[PLACE(OTHER, 1)] = EMPTY;
			if
			:: fresh = 0
			:: fresh = 1
			fi;
#ifdef MUTANT_ONE_KEY
			d_step { key[0] = fresh; key[1] = fresh }
#elif !defined(MUTANT_KEY_LATE)
			key[OTHER] = fresh
#endif
		/* copies a bucket */
		:: running && copied < 2 ->
			if
			:: entry[PLACE(side, copied)] != EMPTY ->
				entry[PLACE(OTHER, fresh)] = entry[PLACE(side, copied)]
			:: else -> skip
			fi;
			copied++
		/* publishes */
#ifdef MUTANT_PUBLISH_EARLY
		:: running && copied == 1 ->
#else
		:: running && copied == 2 ->
#endif
			atomic { side = OTHER; turns = turns + 1 }
			d_step { running = 0; stale = 1 }
#ifdef MUTANT_KEY_LATE
			key[side] = fresh
#endif
		:: present ->                                                   /* replace B */
			version++;
			entry[PLACE(side, key[side])] = version;
#ifdef MUTANT_ACK_FIRST
			acknowledged = version;
			if
			:: running && copied == 2 ->
				atomic { side = OTHER; turns = turns + 1 }
				d_step { running = 0; stale = 1 }
			:: else -> mirror(version)
			fi
#else
			mirror(version);
			acknowledged = version
#endif
		:: present ->                                                   /* remove B */
			atomic {
				entry[PLACE(side, key[side])] = EMPTY;
				present = 0;
				was_absent = 1
			}
			mirror(EMPTY);
			d_step { version++; acknowledged = version }
		:: !present ->                                                  /* insert B */
			version++;
			entry[PLACE(side, key[side])] = version;
			mirror(version);
			atomic { present = 1; acknowledged = version }
		:: running -> running = 0                                         /* gives up */
		fi
	}
}

active proctype reader()
{
	byte floor, seen_turns, found, tries;
	bit seen_side, hash, searched, still;
	inside;                                             /* set up */
	if
	:: hash = 0
	:: hash = 1
	fi;
	atomic { floor = acknowledged; was_absent = !present }
	atomic { seen_side = side; seen_turns = turns }
again:
	found = entry[PLACE(seen_side, hash)];
	if
	:: found != EMPTY -> assert(found >= floor)
	:: else ->
		searched = hash;
		atomic {
			still = (seen_side == side && seen_turns == turns);
			seen_side = side;
			seen_turns = turns
		}
#ifndef MUTANT_BELIEVE_HASH
		hash = key[seen_side];
#endif
		if
		:: still && hash == searched -> assert(was_absent)
		:: else ->
			tries++;
			assert(tries < RETRIES);
			goto again
		fi
	fi;
	inside = 0
}
