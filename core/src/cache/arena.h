/* SPDX-License-Identifier: MIT */
/* The process tier of many processes: one cache in memory that they share, for process.c and home.c only.
 *
 * The memory is a file (0600, in a folder of its own, 0700) that each process maps. Whoever attaches holds a
 * shared lock of the file (flock, which the kernel gives back when he dies); who finds it held by nobody makes
 * it anew, so nothing survives the last user, a reboot, or another layout. Forked children have the mapping
 * and the lock of their parent.
 *
 * Any of the processes may be killed or stopped between any two instructions. So
 *   - a reader writes nothing but how often an entry was asked for, takes no lock, and believes nothing that it
 *     has not checked after it had copied it;
 *   - who drops takes no lock and never waits;
 *   - who puts holds the lock of a shard (robust, process-shared), which is only ever tried: a put that does not
 *     get it is left out. A lock whose holder died gives the shard to the next one, who empties it.
 *
 * Shards are chosen by a hash of the key. Each has a table of slots (64 bits, changed by atomic operations
 * only), eight a bucket, and two rings of records, which are written at the head and let go at the tail: the
 * small one (a tenth) and the main one, S3-FIFO as in shard.h. A slot says where its record is by its position,
 * which only ever rises, so that a place that was used again has another one.
 *
 *   slot      position (44 bits, in units of 32 bytes), tag (15, of the hash), ring (1), state (2), asked (2)
 *   EMPTY     nothing
 *   TENTATIVE the record is written; nobody reads it yet
 *   LIVE      may be read
 *
 *   EMPTY -> TENTATIVE   put, under the lock, once the record is written
 *   TENTATIVE -> LIVE    put, by compare and swap, when the stamp is still what it was
 *   LIVE -> TENTATIVE -> LIVE   eviction, under the lock, while a record that was asked for is written elsewhere
 *   any -> EMPTY         drop, by compare and swap; eviction and the renewal of a shard, under the lock
 *   LIVE -> LIVE         a reader, by compare and swap: asked for once more
 *
 * I1  No value that was dropped is read: drop raises the stamp, then empties the slots that have the tag. A put
 *     makes its slot visible to drops (TENTATIVE) before it looks at the stamp for the last time. So either
 *     that look sees the stamp raised, or the drop sees the slot; its LIVE then fails.
 * I2  No torn value is read: a slot is emptied before its record is overwritten, and a reader looks at the
 *     slot again when it has copied the record.
 * I3  Clearing is one addition: to the generation, which is the upper half of every stamp and stands in each
 *     record. Records of another generation do not count.
 * I4  Nothing older than the ping interval plus its time-out is read: of each channel of coherence that
 *     somebody has started there is a word, on the clock that all processes share (CLOCK_MONOTONIC): owner
 *     (16 bits), state (2), until when (46, ms). Readers and puts want it ALIVE and not over. Its owner alone
 *     moves it on, by compare and swap from the word that he wrote last, to a time counted from when he sent
 *     the ping whose answers say that everything told before it was dropped here. When it is over, whoever
 *     comes first owns it: CLAIMED, until he hears Redis; then everything is cleared, then it is ALIVE. One
 *     who was stopped for long finds another word, and is no longer the owner.
 */
#ifndef RG_CACHE_ARENA_H
#define RG_CACHE_ARENA_H

#include "base/block.h"
#include "base/err.h"
#include "base/slice.h"
#include "cache/cache.h"

typedef struct rg__arena rg__arena; /* this process' view; shared by its threads */

/* place: an absolute folder, or a name: a folder in /dev/shm/regolith-<uid>. key: what all users must agree on
 * (servers, prefix, every definition, in order: the spaces are numbered by it); others have files beside it, as
 * have other sizes. ECONFIG, ELIMIT. */
rg__arena *rg__arena_open(const char *place, rg__slice key, uint64_t max_bytes, rg_err *err);
void rg__arena_close(rg__arena *a);
/* Removes the files of the place that nobody uses any more, as each opening does. */
void rg__arena_tidy(const char *place);

/* Of the hashes that stand for keys. */
uint64_t rg__arena_seed(const rg__arena *a);

/* As those of the process tier (cache.h). get copies. */
rg_block *rg__arena_get(rg__arena *a, uint32_t space, uint64_t key);
uint64_t rg__arena_stamp(rg__arena *a, uint32_t space, uint64_t key);
bool rg__arena_put(rg__arena *a, uint32_t space, uint64_t key, const rg_block *b, uint32_t ttl_s,
                   uint64_t stamp, rg__metrics *m);
bool rg__arena_drop(rg__arena *a, uint32_t space, uint64_t key); /* was there something? */
void rg__arena_clear(rg__arena *a);
void rg__arena_stats(rg__arena *a, uint64_t *bytes, uint64_t *entries);
/* Are all channels that somebody started alive? */
bool rg__arena_alive(const rg__arena *a);

/* ---- who listens for all; channel: number of the Redis pool, under RG__ARENA_CHANNELS ---- */
enum { RG__ARENA_CHANNELS = 16 };
/* What all were told on it. */
rg__told *rg__arena_told(const rg__arena *a, uint32_t channel);
/* Makes it a channel that must be alive. */
void rg__arena_need(rg__arena *a, uint32_t channel);
/* The owner's part: *mine is the word that he wrote last (0 at first). True: he owns it for the next moment. */
bool rg__arena_claim(rg__arena *a, uint32_t channel, uint16_t owner, uint64_t *mine);
/* Alive until then; the first time since the claim everything is cleared before. False: somebody else owns it. */
bool rg__arena_beat(rg__arena *a, uint32_t channel, uint64_t *mine, int64_t until_ms);
/* Gives it up; somebody else may claim it at once. */
void rg__arena_resign(rg__arena *a, uint32_t channel, uint64_t *mine);

#endif
