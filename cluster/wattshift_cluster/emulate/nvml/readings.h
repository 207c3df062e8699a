/* What a card says of itself while it runs: limits, power, energy, activity, memory, processes. */
#ifndef WATTSHIFT_READINGS_H
#define WATTSHIFT_READINGS_H

#include "session.h"

typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned version, sensor; int celsius; } temperature_v1_t;
typedef struct { unsigned version, scope, mw; } power_value_v2_t;
typedef struct {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
} process_t;
typedef struct {
    unsigned pid;
    unsigned long long stamp_us;
    unsigned sm, memory, encoder, decoder;
} sample_t;
typedef struct {
    unsigned field, scope;
    long long stamp_us, latency_us;
    unsigned type;
    nvmlReturn_t code;
    union { unsigned ui; unsigned long long ull; } value;
} field_t;

#define MEMORY_V2 0x02000028u
#define TEMPERATURE_V1 0x0100000Cu
#define POWER_VALUE_V2 0x0200000Cu
#define TYPE_UINT 1u
#define TYPE_ULL 3u
#define SCOPE_MODULE 1u
#define SCOPE_MEMORY 2u
#define NO_INSTANCE 0xFFFFFFFFu

/* A getter of one value: the code first, then the value if that is OK. */
#define GETTER(function, type, slice_allowed, check, value)           \
    nvmlReturn_t function(nvmlDevice_t device, type *out) {           \
        struct call call;                                             \
        if (!out) return INVALID_ARGUMENT;                            \
        nvmlReturn_t code = enter(&call, device, slice_allowed);      \
        if (code != OK) return code;                                  \
        struct card *c = call.card;                                   \
        code = (check);                                               \
        if (code == OK) *out = (type)(value);                         \
        return leave(&call, code);                                    \
    }

/* ---- limits ---- */

GETTER(nvmlDeviceGetEnforcedPowerLimit, unsigned, 0, OK, enforced_mw(c))
GETTER(nvmlDeviceGetPowerManagementLimit, unsigned, 0, OK, c->requested_mw)
GETTER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, 0, OK, c->default_limit_mw)

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned *least,
                                                          unsigned *most) {
    struct call call;
    if (!least || !most) return INVALID_ARGUMENT;
    nvmlReturn_t code = enter(&call, device, 0);
    if (code != OK) return code;
    *least = (unsigned)call.card->min_limit_mw;
    *most = (unsigned)call.card->max_limit_mw;
    return leave(&call, OK);
}

nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned mw) {
    struct call call;
    nvmlReturn_t code = enter(&call, device, 0);
    if (code != OK) return code;
    struct card *c = call.card;
    if (!c->privileged) return leave(&call, NO_PERMISSION);
    if (mw < c->min_limit_mw || mw > c->max_limit_mw) return leave(&call, INVALID_ARGUMENT);
    c->requested_mw = mw;
    if (!c->limit_ignored) c->base_mw = mw;
    c->limit_writes++;
    return leave(&call, OK);
}

nvmlReturn_t nvmlDeviceSetPowerManagementLimit_v2(nvmlDevice_t device, power_value_v2_t *value) {
    if (!value) return INVALID_ARGUMENT;
    if (value->version != POWER_VALUE_V2) return ARGUMENT_VERSION_MISMATCH;
    if (value->scope != 0) return NOT_SUPPORTED; /* no board here limits its module */
    return nvmlDeviceSetPowerManagementLimit(device, value->mw);
}

/* ---- power and energy ---- */

static nvmlReturn_t power_code(const struct card *c) {
    if (c->no_power) return NOT_SUPPORTED;
    return c->power_unknown ? UNKNOWN : OK;
}

static double milli(double value) { return value * 1000 + 0.5; }

GETTER(nvmlDeviceGetPowerUsage, unsigned, 0, power_code(c),
       milli(c->usage_averaged ? c->shown_average_w : c->shown_instant_w))
GETTER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, 0,
       c->has_energy ? OK : NOT_SUPPORTED, milli(c->shown_energy_j))

static nvmlReturn_t field_power(const struct card *c, field_t *f, uint64_t exists, double watts_w) {
    nvmlReturn_t code = exists ? power_code(c) : NOT_SUPPORTED;
    if ((f->scope == SCOPE_MODULE && c->module_extra_w == 0) ||
        (f->scope == SCOPE_MEMORY && c->memory_share == 0) || f->scope > SCOPE_MEMORY)
        code = NOT_SUPPORTED;
    if (code != OK) return code;
    if (f->scope == SCOPE_MODULE) watts_w += c->module_extra_w;
    if (f->scope == SCOPE_MEMORY) watts_w *= c->memory_share;
    f->type = TYPE_UINT;
    f->value.ui = (unsigned)milli(watts_w);
    return OK;
}

static nvmlReturn_t field_limit(field_t *f, double mw) {
    if (f->scope != 0) return NOT_SUPPORTED;
    f->type = TYPE_UINT;
    f->value.ui = (unsigned)mw;
    return OK;
}

static nvmlReturn_t read_field(const struct card *c, field_t *f) {
    switch (f->field) {
    case 83: /* NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION */
        if (!c->has_energy) return NOT_SUPPORTED;
        f->type = TYPE_ULL;
        f->value.ull = (unsigned long long)milli(c->shown_energy_j);
        return OK;
    case 185: return field_power(c, f, c->has_average, c->shown_average_w); /* ..._POWER_AVERAGE */
    case 186: return field_power(c, f, c->has_instant, c->shown_instant_w); /* ..._POWER_INSTANT */
    case 187: return field_limit(f, (double)c->min_limit_mw);
    case 188: return field_limit(f, (double)c->max_limit_mw);
    case 189: return field_limit(f, (double)c->default_limit_mw);
    case 190: return field_limit(f, enforced_mw(c));
    case 192: return field_limit(f, c->requested_mw);
    default: return NOT_SUPPORTED;
    }
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, field_t *fields) {
    struct call call;
    if (!fields || count < 1) return INVALID_ARGUMENT;
    nvmlReturn_t code = enter(&call, device, 0);
    if (code != OK) return code;
    for (int i = 0; i < count; i++) {
        fields[i].code = read_field(call.card, &fields[i]);
        /* A value is as old as the last refresh, frozen or not; a limit is read when asked. */
        int refreshed = fields[i].field <= 186;
        uint64_t stamp = refreshed ? call.card->shown_us : stamp_us(call.card->at_ns);
        fields[i].stamp_us = (long long)stamp;
        fields[i].latency_us = 0;
    }
    return leave(&call, OK);
}

/* ---- activity ---- */

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, utilization_t *out) {
    struct call call;
    if (!out) return INVALID_ARGUMENT;
    nvmlReturn_t code = enter(&call, device, 0);
    if (code != OK) return code;
    if (call.card->mig_slices) return leave(&call, NOT_SUPPORTED); /* as nvml.h says of MIG mode */
    out->gpu = (unsigned)(call.card->shown_load * 100 + 0.5);
    out->memory = out->gpu / 2; /* MODELLED: no source for the ratio */
    return leave(&call, OK);
}

static nvmlReturn_t clock_mhz(nvmlDevice_t device, unsigned type, unsigned *mhz, int highest) {
    struct call call;
    if (!mhz || type > 3) return INVALID_ARGUMENT;
    nvmlReturn_t code = enter(&call, device, 0);
    if (code != OK) return code;
    const struct card *c = call.card;
    if (type == 2) *mhz = (unsigned)c->memory_mhz; /* NVML_CLOCK_MEM */
    else *mhz = highest ? (unsigned)c->sm_mhz : (unsigned)sm_mhz(c);
    return leave(&call, OK);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz) {
    return clock_mhz(device, type, mhz, 0);
}
nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz) {
    return clock_mhz(device, type, mhz, 1);
}

GETTER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, 0, OK, throttle_reasons(c))
GETTER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, 0, OK, throttle_reasons(c))
static GETTER(celsius, int, 0, OK, c->temperature_c + 0.5)

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *out) {
    return sensor == 0 ? celsius(device, (int *)out) : INVALID_ARGUMENT;
}
nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, temperature_v1_t *out) {
    if (!out || out->sensor != 0) return INVALID_ARGUMENT;
    if (out->version != TEMPERATURE_V1) return ARGUMENT_VERSION_MISMATCH;
    return celsius(device, &out->celsius);
}

/* ---- memory and processes ---- */

static unsigned long long used_b(const struct card *c) {
    unsigned long long used = c->memory_used_b;
    for (uint64_t i = 0; i < c->process_count; i++) used += c->processes[i].memory_b;
    return used < c->memory_b ? used : c->memory_b;
}

static nvmlReturn_t memory(nvmlDevice_t device, memory_t *out) {
    struct call call;
    nvmlReturn_t code = enter(&call, device, 1);
    if (code != OK) return code;
    /* Slices are equal here; which process sits in which is not emulated. */
    uint64_t parts = call.slice == WHOLE ? 1 : call.card->mig_slices;
    out->total = call.card->memory_b / parts;
    out->used = used_b(call.card) / parts;
    out->free = out->total - out->used;
    return leave(&call, OK);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, memory_t *out) {
    return out ? memory(device, out) : INVALID_ARGUMENT;
}
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, memory_v2_t *out) {
    memory_t found;
    if (!out) return INVALID_ARGUMENT;
    if (out->version != MEMORY_V2) return ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t code = memory(device, &found);
    if (code != OK) return code;
    out->total = found.total;
    out->reserved = 0;
    out->free = found.free;
    out->used = found.used;
    return OK;
}

/* The rows of the control file, and the followed worker while it lives. */
static unsigned list_processes(const struct card *c, struct process rows[PROCESSES + 1]) {
    unsigned count = 0;
    for (; count < c->process_count; count++) rows[count] = c->processes[count];
    if (c->duty_pid)
        rows[count++] = (struct process){c->duty_pid, 0, (uint64_t)(c->duty * 100 + 0.5), 0};
    return count;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *room,
                                                     process_t *out) {
    struct call call;
    struct process rows[PROCESSES + 1];
    if (!room) return INVALID_ARGUMENT;
    nvmlReturn_t code = enter(&call, device, 0);
    if (code != OK) return code;
    unsigned count = list_processes(call.card, rows);
    if (count && (!out || *room < count)) code = INSUFFICIENT_SIZE;
    for (unsigned i = 0; code == OK && i < count; i++)
        out[i] = (process_t){(unsigned)rows[i].pid, rows[i].memory_b, NO_INSTANCE, NO_INSTANCE};
    *room = count;
    return leave(&call, code);
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, sample_t *out, unsigned *room,
                                             unsigned long long after_us) {
    struct call call;
    struct process rows[PROCESSES + 1];
    if (!room) return INVALID_ARGUMENT;
    nvmlReturn_t code = enter(&call, device, 0);
    if (code != OK) return code;
    if (call.card->mig_slices) return leave(&call, NOT_SUPPORTED); /* as nvml.h says of MIG mode */
    unsigned long long stamp = call.card->shown_us;
    unsigned count = list_processes(call.card, rows), active = 0;
    for (unsigned i = 0; i < count; i++)
        if (rows[i].sm_pct) rows[active++] = rows[i];
    if (!active || stamp <= after_us) code = NOT_FOUND; /* no sample since */
    else if (!out || *room < active) code = INSUFFICIENT_SIZE;
    for (unsigned i = 0; code == OK && i < active; i++)
        out[i] = (sample_t){.pid = (unsigned)rows[i].pid, .stamp_us = stamp,
                            .sm = (unsigned)rows[i].sm_pct, .memory = (unsigned)rows[i].memory_pct};
    *room = active;
    return leave(&call, code);
}

#endif
