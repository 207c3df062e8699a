/* What an emulated card does between two calls: draw, cap, energy, heat.
 *
 * Nothing runs on its own. Each call into the library brings the card up to now, through the changes
 * that its owner booked in the meantime, so all processes see one history whoever asks. The model is
 * of first order throughout: the draw follows the lower of what the load asks for and the cap that
 * has taken hold; temperature follows the draw. Time constants are the owner's (MODELLED).
 */
#ifndef WATTSHIFT_PHYSICS_H
#define WATTSHIFT_PHYSICS_H

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "layout.h"

#define WINDOW_NS 1000000000u /* nvmlDeviceGetPowerUsage: mean over 1 s from Ampere on, not GA100 */
#define DUTY_NS 100000000u    /* a followed worker's duty is taken over at least this long */
#define LONG_NS 4000000000u   /* a longer gap is crossed in steps of 1 s, but for its end */
#define SECOND_NS 1000000000u

#define REASON_IDLE 0x1u
#define REASON_POWER_CAP 0x4u
#define REASON_HW_SLOWDOWN 0x8u
#define REASON_SW_THERMAL 0x20u
#define REASON_HW_THERMAL 0x40u
#define HW_MARGIN_C 2.0 /* H100: operates up to 87 degrees C, slows down at 89 (nvidia-smi -q) */

/* Layout of a worker's seat: gate/seat.py. */
#define SEAT_WORDS 16
#define SEAT_PID 3
#define SEAT_BUSY_NS 9
static const char SEAT_MAGIC[9] = "WSHWORKR";

/* A worker's file as this process mapped it; the duty found in it is shared through the card. */
struct follower {
    uint64_t change;
    const volatile uint64_t *words;
};
static struct follower followers[CARDS];

static void unfollow(struct follower *f) {
    if (f->words) munmap((void *)f->words, SEAT_WORDS * 8);
    f->words = NULL;
}

static void map_seat(struct follower *f, const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (lseek(fd, 0, SEEK_END) >= SEAT_WORDS * 8) {
        void *map = mmap(NULL, SEAT_WORDS * 8, PROT_READ, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED) f->words = map;
    }
    close(fd);
}

static void find_duty(struct card *c, struct follower *f, uint64_t now_ns) {
    if (f->change != c->follow_change) {
        unfollow(f);
        f->change = c->follow_change;
    }
    if (!c->follow_path[0]) {
        c->duty = 0;
        c->duty_pid = 0;
        return;
    }
    if (c->duty_ns && now_ns - c->duty_ns < DUTY_NS) return;
    /* An idle worker may be a dead one whose file was replaced: look again by name. */
    if (f->words && c->duty == 0) unfollow(f);
    if (!f->words) map_seat(f, c->follow_path);
    if (!f->words || memcmp((const void *)f->words, SEAT_MAGIC, 8) != 0) {
        c->duty = 0;
        c->duty_pid = 0;
        c->duty_ns = 0;
        return;
    }
    uint64_t busy_ns = f->words[SEAT_BUSY_NS];
    /* The first look only notes where the counter stands; a new worker starts it at zero. */
    if (c->duty_ns && busy_ns >= c->duty_busy_ns) {
        double duty = (double)(busy_ns - c->duty_busy_ns) / (double)(now_ns - c->duty_ns);
        c->duty = duty > 1 ? 1 : duty;
    } else {
        c->duty = 0;
    }
    c->duty_ns = now_ns;
    c->duty_busy_ns = busy_ns;
    /* The seat of a killed worker keeps its name; a driver forgets it. */
    uint64_t pid = f->words[SEAT_PID];
    c->duty_pid = pid && (kill((pid_t)pid, 0) == 0 || errno != ESRCH) ? pid : 0;
}

/* Firmware takes the lowest of several writers. */
static double enforced_mw(const struct card *c) {
    return c->clamp_mw > 0 && c->clamp_mw < c->base_mw ? c->clamp_mw : c->base_mw;
}

static double total_load(const struct card *c) {
    double load = c->load + c->duty * c->mining_weight;
    return load > 1 ? 1 : load;
}

static uint64_t thermal_reasons(const struct card *c) {
    uint64_t reasons = c->forced_reasons;
    if (c->temperature_c >= c->slowdown_c) reasons |= REASON_SW_THERMAL;
    if (c->temperature_c >= c->slowdown_c + HW_MARGIN_C)
        reasons |= REASON_HW_THERMAL | REASON_HW_SLOWDOWN;
    return reasons;
}

/* Share of the full clock that heat leaves; hardware slowdown halves clocks or more (nvml.h). */
static double thermal_share(const struct card *c) {
    uint64_t reasons = thermal_reasons(c);
    if (reasons & (REASON_HW_SLOWDOWN | REASON_HW_THERMAL)) return 0.5;
    return reasons & REASON_SW_THERMAL ? 0.75 : 1.0;
}

static double asked_w(const struct card *c) {
    return c->idle_w + (c->full_w - c->idle_w) * total_load(c) * thermal_share(c);
}

static int cap_binds(const struct card *c) { return asked_w(c) > c->ceiling_w + 0.5; }

static uint64_t throttle_reasons(const struct card *c) {
    uint64_t reasons = thermal_reasons(c);
    if (total_load(c) < 0.001) reasons |= REASON_IDLE;
    else if (cap_binds(c)) reasons |= REASON_POWER_CAP;
    return reasons;
}

static double sm_mhz(const struct card *c) {
    if (total_load(c) < 0.001) return (double)c->sm_idle_mhz;
    double share = thermal_share(c);
    /* Dynamic power goes with clock times voltage squared; near the cap roughly with its square. */
    if (cap_binds(c)) {
        double room = (c->ceiling_w - c->idle_w) / (asked_w(c) - c->idle_w);
        share *= sqrt(room > 0.04 ? room : 0.04);
    }
    return (double)c->sm_mhz * share;
}

static uint64_t clock_ns(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
    return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

/* A boot clock time as NVML stamps it: microseconds since 1970. */
static unsigned long long stamp_us(uint64_t boot_ns) {
    uint64_t epoch_ns = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_BOOTTIME);
    return (epoch_ns + boot_ns) / 1000;
}

static void show(struct card *c) {
    uint64_t then = (c->at_ns - WINDOW_NS) / TICK_NS;
    if (!c->stale_power) {
        c->shown_instant_w = c->power_w;
        double span_s = (double)(c->at_ns - then * TICK_NS) / SECOND_NS;
        c->shown_average_w = (c->energy_j - c->history_j[then % HISTORY]) / span_s;
    }
    if (!c->stale_energy) c->shown_energy_j = c->energy_j;
    c->shown_load = total_load(c);
    c->shown_us = stamp_us(c->at_ns); /* kept: the same reading bears the same stamp */
}

/* One step with constant load: exact for the draw and its energy. */
static void step_to(struct card *c, uint64_t until_ns) {
    double dt_s = (double)(until_ns - c->at_ns) / SECOND_NS;
    double limit_w = enforced_mw(c) / 1000;
    c->ceiling_w += (limit_w - c->ceiling_w) * (1 - exp(-dt_s / c->cap_tau_s));
    double target_w = fmin(asked_w(c), fmax(c->ceiling_w, c->idle_w));
    double left = exp(-dt_s / c->power_tau_s);
    c->energy_j += target_w * dt_s + (c->power_w - target_w) * c->power_tau_s * (1 - left);
    c->power_w = target_w + (c->power_w - target_w) * left;
    double settled_c = c->ambient_c + c->c_per_w * c->power_w;
    c->temperature_c += (settled_c - c->temperature_c) * (1 - exp(-dt_s / c->heat_tau_s));
    c->at_ns = until_ns;
}

static void run_to(struct card *c, uint64_t until_ns) {
    while (until_ns > c->at_ns + LONG_NS) step_to(c, c->at_ns + SECOND_NS);
    while (c->at_ns < until_ns) {
        uint64_t tick_ns = (c->at_ns / TICK_NS + 1) * TICK_NS;
        step_to(c, tick_ns < until_ns ? tick_ns : until_ns);
        if (c->at_ns % TICK_NS) continue;
        c->history_j[c->at_ns / TICK_NS % HISTORY] = c->energy_j;
        if (c->at_ns % c->refresh_ns == 0) show(c);
    }
}

static void start_counter(struct card *c) {
    uint64_t tick = c->at_ns / TICK_NS;
    c->energy_j = 0;
    /* The window reaches back before the start: as if the draw had been what it is. */
    for (uint64_t back = 0; back < HISTORY; back++) {
        uint64_t before_ns = c->at_ns - (tick - back) * TICK_NS;
        c->history_j[(tick - back) % HISTORY] = -c->power_w * (double)before_ns / SECOND_NS;
    }
    c->requested_mw = c->base_mw = (double)c->default_limit_mw;
}

static void start(struct card *c, uint64_t now_ns) {
    c->at_ns = now_ns;
    c->power_w = c->idle_w;
    start_counter(c);
    c->ceiling_w = enforced_mw(c) / 1000;
    c->temperature_c = c->ambient_c + c->c_per_w * c->idle_w;
    show(c);
}

static void apply(struct card *c, const struct event *e) {
    switch (e->change) {
    case CHANGE_LOAD: c->load = e->value; break;
    case CHANGE_WRITE_LIMIT: c->requested_mw = c->base_mw = e->value; break;
    case CHANGE_CLAMP: c->clamp_mw = e->value; break;
    case CHANGE_AMBIENT: c->ambient_c = e->value; break;
    case CHANGE_REASONS: c->forced_reasons = (uint64_t)e->value; break;
    case CHANGE_RELOAD: start_counter(c); show(c); break;
    }
}

/* Bring a card up to now. The caller holds its lock. */
static void advance(struct card *c, struct follower *f, uint64_t now_ns) {
    if (!c->at_ns) start(c, c->made_ns);
    if (now_ns < c->at_ns) now_ns = c->at_ns; /* a held clock was let go */
    find_duty(c, f, now_ns);
    if (c->event_head - c->event_tail > EVENTS) c->event_tail = c->event_head - EVENTS;
    for (; c->event_tail < c->event_head; c->event_tail++) {
        const struct event *e = &c->events[c->event_tail % EVENTS];
        run_to(c, e->at_ns < now_ns ? e->at_ns : now_ns);
        apply(c, e);
    }
    run_to(c, now_ns);
}

#endif
