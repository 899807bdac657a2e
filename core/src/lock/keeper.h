/* SPDX-License-Identifier: MIT */
/* The inside of keepers and locks; for the files of lock/ only. */
#ifndef RG_LOCK_KEEPER_H
#define RG_LOCK_KEEPER_H

#include <pthread.h>
#include <sys/types.h>
#include "lock/lock.h"

enum {
    RG__KEEPER_CALL_MS = 300, /* one exchange of the keeper, connecting included */
    RG__KEEPER_RETRY_MS = 100,
    RG__KEEPER_BATCH = 64,    /* locks of one script */
};

typedef enum rg__dlock_state {
    RG__DLOCK_NEW = 0,  /* not taken yet */
    RG__DLOCK_HELD,     /* in the keeper's list of held ones */
    RG__DLOCK_LOST,     /* for good */
    RG__DLOCK_LEAVING,  /* given back, which Redis has not said to know: the keeper goes on telling it */
    RG__DLOCK_RELEASED, /* for good */
} rg__dlock_state;

struct rg__dlock {
    rg__keeper *keeper;
    atomic_uint refs;
    pid_t pid;
    char *key;            /* and channel */
    size_t key_len;
    char owner[33];
    rg__dlock_opts opts;
    /* under the keeper's lock */
    rg__node node;        /* in held or dropped */
    rg__dlock_state state;
    bool unsure;          /* Redis may hold it for us though no answer said so */
    int64_t valid_until;  /* of the clock below */
    int64_t renew_at;
    int64_t renew_until;
    int64_t forget_at;    /* dropped: when Redis has forgotten it by itself */
    uint64_t token;
    void (*told)(void *arg);
    void *told_arg;
};

struct rg__topic {
    rg__node node;      /* in the keeper's topics */
    rg__node waiters;   /* first come first */
    char *channel;      /* the lock's key */
    size_t len;
    uint32_t refs;      /* who listens */
    uint64_t news;
    enum { RG__TOPIC_NEW, RG__TOPIC_ASKED, RG__TOPIC_ON } state; /* of the subscription */
};

struct rg__keeper {
    rg__redis_pool *pool;   /* borrowed */
    rg__metrics *metrics;
    char *prefix;           /* "{P}:lock:" */
    char *fence;            /* "{P}:fence": the last token */
    pthread_mutex_t lock;   /* guards all that follows; the notifiers' are locked under it */
    rg__node held, dropped; /* locks */
    rg__node topics;
    pthread_t thread;
    int wake;               /* eventfd; -1: none */
    atomic_int pid;         /* whose thread runs; 0: none does */
    bool closed;
    atomic_bool stop;
    /* the thread's own */
    rg__redis *voice, *ears; /* for scripts; subscribed */
    int64_t voice_at, ears_at; /* monotonic: not to be connected before */
    int64_t drop_at;         /* boot clock: when to try again to give dropped ones back */
};

/* Milliseconds of a clock that runs on while the machine sleeps. */
int64_t rg__dlock_now(void);

/* ---- lock.c; all under the keeper's lock but for the scripts ---- */
void rg__dlock_ref(rg__dlock *l);
void rg__dlock_unref(rg__dlock *l); /* with or without the keeper's lock */
/* HELD to LOST; tells. Takes the list's reference away. */
void rg__dlock_lose(rg__dlock *l);
void rg__dlock_renewed(rg__dlock *l, int64_t asked_at);
/* Runs renew (or free) for n locks; answers[i]: 1, or 0 when it is not ours. */
int rg__dlock_renew_all(rg__redis *c, const rg__ctx *ctx, rg__dlock *const *locks, size_t n,
                       char *answers, rg_err *err);
int rg__dlock_free_all(rg__redis *c, const rg__ctx *ctx, rg__dlock *const *locks, size_t n,
                      char *answers, rg_err *err);

/* ---- keeper.c ---- */
/* Starts the thread if need be. ECLOSED, ELIMIT. Not under the lock. */
int rg__keeper_start(rg__keeper *k, rg_err *err);
void rg__keeper_wake(rg__keeper *k);
/* In a forked child everything that was held is the parent's. */
void rg__keeper_check_process(rg__keeper *k);

/* ---- wait.c ---- */
/* Subscribes to what is waited for and hears what is told; connects when it must. */
void rg__ears_tend(rg__keeper *k);
void rg__ears_hear(rg__keeper *k);
/* Fires those whose time is over; the next one's time, monotonic. */
int64_t rg__ears_fire_due(rg__keeper *k);
/* With everything under the lock, or nobody else left. */
void rg__topic_free(rg__topic *t);
/* Fires all. */
void rg__ears_fire_all(rg__keeper *k);

#endif
