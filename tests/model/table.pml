/* SPDX-License-Identifier: MIT
 *
 * The table grows and shrinks by linear hashing while a reader looks for a key: shm/table_find.c
 * against shm/table_write.c and shm/table_resize.c, one shared word at a time. Every store of the
 * writer and every load of the reader is a step of its own; all interleavings of OPERATIONS
 * changes with one search are explored. (The writer's stores are seen in order, as release stores
 * are, so no store buffer is needed here.)
 *
 *   A  a key that is there is never missed, and no value older than one acknowledged before the
 *      search began is returned.
 *
 * Key B is searched for. B hashes to 3, so it moves when the table goes from one bucket to two and
 * from three to four; C hashes to 1 and moves too; A hashes to 0 and stays where it is. A bucket
 * of the model has one entry and a link, so that a chain of buckets stands for the seven entries
 * as well.
 *
 *   MUTANT_CLEAR_FIRST      moved entries are cleared before the root is published
 *   MUTANT_ROOT_FIRST       the root is published before the new chain is filled
 *   MUTANT_NO_CLEAR         moved entries stay where they were
 *   MUTANT_BELIEVE_MISS     a miss is believed without looking at the root again
 *   MUTANT_NO_TURNS         the root does not count its changes of direction
 *   MUTANT_MOVE_IN_CHAIN    an entry moves within its chain, and the root stays as it is
 *   MUTANT_MOVE_CLEAR_FIRST an entry moves within its chain, and is cleared before the root differs
 *   MUTANT_REUSE_AT_ONCE    an overflow bucket is used again without a grace period
 *   MUTANT_INSERT_NEW       a replacement goes to another place before the old one is cleared
 *   MUTANT_NOT_IN_PLACE     a replacement clears the old entry before it stores the new one
 */
#ifndef OPERATIONS
#define OPERATIONS 5
#endif
#define PRIMARIES 4
#ifndef BUCKETS
#define BUCKETS 9                /* 0..3 primary, the rest overflow; a link of 0 ends the chain */
#endif
#define EMPTY 0
#define KEY_A 20
#define KEY_C 21                 /* 1..19 are versions of B */
#define RETRIES (OPERATIONS + 2)

byte entry[BUCKETS];
byte next[BUCKETS];
byte primaries = 1;              /* these two are the root word: one load, one store */
byte turns = 0;
bit growing = 1;                 /* writer's own: the direction of the current turn */
byte limbo = 0;                  /* an unlinked overflow bucket that waits for the reader */
bit used[BUCKETS];               /* writer's own: overflow buckets in a chain or in limbo */

/* ghost: newest version of B; acknowledged once its store is done */
byte version = 1;
byte acknowledged = 1;
bit present = 1;
bit was_absent = 0;              /* ghost: B was away at some moment of the search */
/* the reader is in its section (epochs are tests of another model) */
bit inside = 0;

#define HASH(e) (e == KEY_A -> 0 : (e == KEY_C -> 1 : 3))
#define INDEX3(h) ((h & 3) < 3 -> (h & 3) : (h & 1))
#define INDEX(h, n) (n == 1 -> 0 : (n == 2 -> (h & 1) : (n == 3 -> INDEX3(h) : (h & 3))))
#define IS_B(e) (e != EMPTY && e < KEY_A)

/* Puts `what` into the first empty place of the chain of `home`, as one store, or at its end. */
inline insert(what, home)
{
	d_step {
		at = home;
		do
		:: entry[at] != EMPTY && next[at] != 0 -> at = next[at]
		:: else -> break
		od;
		spare = PRIMARIES
	}
	if
	:: entry[at] == EMPTY -> entry[at] = what
	:: else ->
		d_step {
			do
			:: used[spare] -> spare++
			:: else -> break
			od;
			used[spare] = 1
		}
		entry[spare] = what;
		next[spare] = 0;
		next[at] = spare;
	fi;
	d_step { at = 0; spare = 0 }
}

/* Copies into chain `to` what belongs there once the table has `n` buckets. */
inline fill(from, to, n)
{
	walk = from;
	do
	:: 1 ->
		if
		:: entry[walk] != EMPTY && INDEX(HASH(entry[walk]), n) == to ->
			insert(entry[walk], to)
		:: else -> skip
		fi;
		if
		:: next[walk] != 0 -> walk = next[walk]
		:: else -> break
		fi
	od;
	walk = 0
}

/* Clears in chain `from` what does not belong there in a table of `n` buckets. */
inline clear(from, n)
{
#ifdef MUTANT_NO_CLEAR
	skip
#else
	walk = from;
	do
	:: 1 ->
		if
		:: entry[walk] != EMPTY && INDEX(HASH(entry[walk]), n) != from ->
			entry[walk] = EMPTY
		:: else -> skip
		fi;
		if
		:: next[walk] != 0 -> walk = next[walk]
		:: else -> break
		fi
	od;
	walk = 0
#endif
}

inline publish(n, grow)
{
	atomic {
#ifndef MUTANT_NO_TURNS
		turns = (growing == grow -> turns : turns + 1);
#endif
		growing = grow;
		primaries = n
	}
}

/* Takes the first empty overflow bucket out of a chain. Its link stays: a reader may be on it. */
inline trim(home)
{
	d_step {
		walk = home;
		at = next[home];
		do
		:: at != 0 && entry[at] != EMPTY -> walk = at; at = next[at]
		:: else -> break
		od
	}
	if
	:: at != 0 && limbo == 0 ->
		next[walk] = next[at];
#ifdef MUTANT_REUSE_AT_ONCE
		used[at] = 0
#else
		limbo = at
#endif
	:: else -> skip
	fi;
	d_step { walk = 0; at = 0 }
}

/* Empties the last overflow bucket of a chain into a place before it: fill, new root, clear. */
inline compact(home)
{
	d_step {
		walk = home;
		at = home;
		do
		:: next[at] != 0 -> at = next[at]
		:: else -> break
		od;
		do
		:: walk != at && entry[walk] != EMPTY -> walk = next[walk]
		:: else -> break
		od
	}
	if
	:: walk != at && entry[at] != EMPTY ->
		entry[walk] = entry[at];
#ifdef MUTANT_MOVE_CLEAR_FIRST
		entry[at] = EMPTY;
#endif
#if !defined(MUTANT_MOVE_IN_CHAIN) && !defined(MUTANT_NO_TURNS)
		turns = turns + 1;
#endif
		entry[at] = EMPTY;
		trim(home)
	:: else -> skip
	fi;
	d_step { walk = 0; at = 0 }
}

/* Where B stands: the first copy in its chain. */
inline locate()
{
	d_step {
		at = INDEX(3, primaries);
		do
		:: IS_B(entry[at]) -> break
		:: else -> at = next[at]
		od
	}
}

active proctype writer()
{
	byte done, at, spare, walk, home, other, old;
	bit crowded;
	d_step { entry[0] = KEY_A; used[4] = 1; next[0] = 4; entry[4] = 1; inside = 1 }
	for (done : 1 .. OPERATIONS) {
		if
		:: primaries < PRIMARIES ->                                     /* split */
			d_step {
				other = primaries;
				home = INDEX(other, primaries);
				old = primaries + 1
			}
#ifdef MUTANT_ROOT_FIRST
			publish(old, 1);
			fill(home, other, old);
			clear(home, old)
#elif defined(MUTANT_CLEAR_FIRST)
			fill(home, other, old);
			clear(home, old);
			publish(old, 1)
#else
			fill(home, other, old);
			publish(old, 1);
			clear(home, old)
#endif
		:: primaries > 1 ->                                             /* merge */
			d_step { other = primaries - 1; old = other; home = INDEX(other, old) }
#ifdef MUTANT_ROOT_FIRST
			publish(old, 0);
			fill(other, home, old);
			clear(other, old)
#elif defined(MUTANT_CLEAR_FIRST)
			fill(other, home, old);
			clear(other, old);
			publish(old, 0)
#else
			fill(other, home, old);
			publish(old, 0);
			clear(other, old)
#endif
		:: present ->                                                   /* replace B */
			version++;
			locate();
#ifdef MUTANT_INSERT_NEW
			d_step { old = at; home = INDEX(3, primaries) }
			insert(version, home);
			entry[old] = EMPTY;
#elif defined(MUTANT_NOT_IN_PLACE)
			entry[at] = EMPTY;
			entry[at] = version;
#else
			entry[at] = version;
#endif
			acknowledged = version
		:: present ->                                                   /* remove B */
			locate();
			atomic { entry[at] = EMPTY; present = 0; was_absent = 1 }
			d_step { version++; acknowledged = version; home = INDEX(3, primaries) }
			trim(home)
		:: !present ->                                                  /* insert B */
			d_step { version++; home = INDEX(3, primaries) }
			insert(version, home);
			atomic { present = 1; acknowledged = version }
		:: entry[0] == KEY_A ->                                         /* remove A */
			entry[0] = EMPTY;
			trim(0)
		/* move within a chain */
		:: next[INDEX(3, primaries)] != 0 ->
			home = INDEX(3, primaries);
			compact(home)
		:: entry[0] == EMPTY -> entry[0] = KEY_A                        /* insert A */
		:: limbo != 0 && !inside -> d_step { used[limbo] = 0; limbo = 0 }
		:: !crowded ->                                                  /* insert C */
			d_step { crowded = 1; home = INDEX(1, primaries) }
			insert(KEY_C, home)
		:: crowded ->                                                   /* remove C */
			d_step { crowded = 0; home = INDEX(1, primaries) }
			d_step {
				at = home;
				do
				:: entry[at] == KEY_C -> break
				:: else -> at = next[at]
				od
			}
			entry[at] = EMPTY;
			trim(home)
		fi;
		d_step { at = 0; spare = 0; walk = 0; home = 0; other = 0; old = 0 }
	}
}

active proctype reader()
{
	byte floor, seen_primaries, seen_turns, index, at, found, tries;
	inside;                                             /* set up */
	atomic { floor = acknowledged; was_absent = !present }
	atomic { seen_primaries = primaries; seen_turns = turns }
again:
	index = INDEX(3, seen_primaries);
	at = index;
	do
	:: 1 ->
		found = entry[at];
		if
		:: IS_B(found) -> break
		:: else -> skip
		fi;
		at = next[at];
		if
		:: at == 0 -> found = EMPTY; break
		:: else -> skip
		fi
	od;
	if
	:: IS_B(found) ->
		assert(found >= floor)
	:: else ->
#ifndef MUTANT_BELIEVE_MISS
		if
		:: atomic { seen_turns == turns && index == INDEX(3, primaries) -> skip }
		:: atomic { else -> seen_primaries = primaries; seen_turns = turns; tries++ }
		   assert(tries < RETRIES);
		   goto again
		fi;
#endif
		assert(was_absent)
	fi;
	inside = 0
}
