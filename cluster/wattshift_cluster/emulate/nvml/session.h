/* Who may ask what: the mapped control file, nvmlInit, handles, and the lock around one call. */
#ifndef WATTSHIFT_SESSION_H
#define WATTSHIFT_SESSION_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "physics.h"

typedef int nvmlReturn_t;
typedef void *nvmlDevice_t;

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4,
    NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15,
    OPERATING_SYSTEM = 17, LIB_RM_VERSION_MISMATCH = 18, ARGUMENT_VERSION_MISMATCH = 25,
    UNKNOWN = 999
};

/* Calls share what nvmlInit and nvmlShutdown change; each card has a lock of its own below that. */
static pthread_rwlock_t session = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t threads[CARDS] = {[0 ... CARDS - 1] = PTHREAD_MUTEX_INITIALIZER};
static struct control *control;
static int control_fd = -1;
static dev_t control_device;
static ino_t control_inode;
static unsigned inits;
static uint64_t init_start; /* driver start that nvmlInit saw */
static unsigned seen[CARDS], seen_count;

/* ---- handles: mark, driver start, slot, slice; never dereferenced ---- */

#define MARK 0x5753u
#define WHOLE 0xFFu

static nvmlDevice_t make_handle(unsigned slot, unsigned slice) {
    return (nvmlDevice_t)((uintptr_t)MARK << 32 | (init_start & 0xFFFF) << 16 | slot << 8 | slice);
}

struct call { /* one call on one card, between enter and leave */
    struct card *card;
    unsigned slot, slice;
};

/* Byte n of the file stands for card n between processes: holders take microseconds, and the
 * kernel drops the lock of one that dies. Threads of a process share its file: a mutex goes first. */
static void lock_file(unsigned slot, short type) {
    struct flock area = {.l_type = type, .l_whence = SEEK_SET, .l_start = slot, .l_len = 1};
    while (fcntl(control_fd, F_OFD_SETLKW, &area) < 0 && errno == EINTR) {}
}

static uint64_t physics_now_ns(void) {
    uint64_t held_ns = control->held_clock_ns;
    return held_ns ? held_ns : clock_ns(CLOCK_BOOTTIME);
}

static nvmlReturn_t driver_state(void) {
    if (!inits) return UNINITIALIZED;
    if (!control->driver_loaded) return DRIVER_NOT_LOADED;
    return control->driver_starts == init_start ? OK : UNINITIALIZED;
}

static nvmlReturn_t card_state(const struct call *call, int slice_allowed) {
    if (call->card->lost || call->card->absent) return GPU_IS_LOST;
    if (call->slice == WHOLE) return OK;
    if (!slice_allowed) return NOT_SUPPORTED;
    return call->slice < call->card->mig_slices ? OK : INVALID_ARGUMENT;
}

static nvmlReturn_t resolve(struct call *call, uintptr_t handle) {
    nvmlReturn_t code = driver_state();
    if (code != OK) return code;
    call->slot = handle >> 8 & 0xFF;
    call->slice = handle & 0xFF;
    if (handle >> 32 != MARK) return INVALID_ARGUMENT;
    if ((handle >> 16 & 0xFFFF) != (init_start & 0xFFFF)) return INVALID_ARGUMENT; /* of before */
    if (call->slot >= control->count) return INVALID_ARGUMENT;
    call->card = &control->cards[call->slot];
    return OK;
}

/* Check the handle and take the card. On OK the caller must leave(). */
static nvmlReturn_t enter(struct call *call, nvmlDevice_t device, int slice_allowed) {
    pthread_rwlock_rdlock(&session);
    nvmlReturn_t code = resolve(call, (uintptr_t)device);
    if (code == OK && call->card->lag_ns) { /* before the lock: nobody else waits */
        uint64_t lag_ns = call->card->lag_ns;
        struct timespec lag = {(time_t)(lag_ns / SECOND_NS), (long)(lag_ns % SECOND_NS)};
        nanosleep(&lag, NULL);
        code = driver_state();
    }
    if (code == OK) code = card_state(call, slice_allowed);
    if (code != OK) {
        pthread_rwlock_unlock(&session);
        return code;
    }
    pthread_mutex_lock(&threads[call->slot]);
    lock_file(call->slot, F_WRLCK);
    advance(call->card, &followers[call->slot], physics_now_ns());
    return OK;
}

static nvmlReturn_t leave(struct call *call, nvmlReturn_t code) {
    lock_file(call->slot, F_UNLCK);
    pthread_mutex_unlock(&threads[call->slot]);
    pthread_rwlock_unlock(&session);
    return code;
}

static void unmap(void) {
    for (unsigned i = 0; i < CARDS; i++) {
        unfollow(&followers[i]);
        followers[i].change = 0;
    }
    if (control) munmap(control, CONTROL_BYTES);
    if (control_fd >= 0) close(control_fd);
    control = NULL;
    control_fd = -1;
}

static nvmlReturn_t map(void) {
    const char *path = getenv("WATTSHIFT_EMULATED_NVML");
    struct stat now;
    if (!path || stat(path, &now) < 0) return DRIVER_NOT_LOADED;
    if (control && now.st_dev == control_device && now.st_ino == control_inode) return OK;
    unmap();
    control_fd = open(path, O_RDWR | O_CLOEXEC);
    if (control_fd < 0) return NO_PERMISSION;
    if (fstat(control_fd, &now) < 0 || now.st_size < (off_t)CONTROL_BYTES) {
        unmap();
        return LIB_RM_VERSION_MISMATCH;
    }
    void *at = mmap(NULL, CONTROL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, control_fd, 0);
    if (at == MAP_FAILED) {
        unmap();
        return OPERATING_SYSTEM;
    }
    control = at;
    control_device = now.st_dev;
    control_inode = now.st_ino;
    if (memcmp(control->magic, MAGIC, 8) == 0 && control->layout == LAYOUT) return OK;
    unmap();
    return LIB_RM_VERSION_MISMATCH;
}

#endif
