/* libnvidia-ml.so.1 for a machine without a GPU: NVML's calls, answered from a control file.
 *
 * Signatures, structures and codes are those that nvidia-ml-py 13 declares. The file is named by
 * WATTSHIFT_EMULATED_NVML and mapped at nvmlInit; layout.py describes it. A call takes the card's
 * lock, brings its physics up to now and answers; a symbol that is missing here makes the binding
 * say FUNCTION_NOT_FOUND, as an older driver would.
 */
#define _GNU_SOURCE
#include "readings.h"

typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} pci_t;

#define MAX_SLICES 7u /* A100, H100 and H200 split into at most seven */

static nvmlReturn_t put_text(char *out, unsigned room, const char *text) {
    if (strlen(text) >= room) return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return OK;
}

/* ---- library ---- */

nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    pthread_rwlock_wrlock(&session);
    nvmlReturn_t code = map();
    /* Inits of before a reload are void: they must not keep the library open. */
    if (code != OK || control->driver_starts != init_start) inits = 0;
    if (code == OK && !control->driver_loaded) code = DRIVER_NOT_LOADED;
    if (code == OK) {
        inits++;
        init_start = control->driver_starts;
        seen_count = 0; /* a card that has gone shifts the indices of those behind it */
        for (unsigned slot = 0; slot < control->count; slot++)
            if (!control->cards[slot].absent) seen[seen_count++] = slot;
    }
    pthread_rwlock_unlock(&session);
    return code;
}

nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }

nvmlReturn_t nvmlShutdown(void) {
    pthread_rwlock_wrlock(&session);
    nvmlReturn_t code = inits ? OK : UNINITIALIZED;
    if (inits) inits--;
    pthread_rwlock_unlock(&session);
    return code;
}

const char *nvmlErrorString(nvmlReturn_t code) {
    switch (code) {
    case OK: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
    case ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
    default: return "Unknown Error";
    }
}

static nvmlReturn_t system_text(char *out, unsigned room, const char *before) {
    char text[80];
    pthread_rwlock_rdlock(&session);
    nvmlReturn_t code = out ? driver_state() : INVALID_ARGUMENT;
    if (code == OK) {
        snprintf(text, sizeof text, "%s%s", before, control->driver_version);
        code = put_text(out, room, text);
    }
    pthread_rwlock_unlock(&session);
    return code;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned room) {
    return system_text(out, room, "");
}
/* NVML's version is the binding's generation before the driver's version. */
nvmlReturn_t nvmlSystemGetNVMLVersion(char *out, unsigned room) {
    return system_text(out, room, "13.");
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *out) {
    pthread_rwlock_rdlock(&session);
    nvmlReturn_t code = out ? driver_state() : INVALID_ARGUMENT;
    if (code == OK) *out = 13000;
    pthread_rwlock_unlock(&session);
    return code;
}
nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *out) {
    return nvmlSystemGetCudaDriverVersion(out);
}

/* ---- finding cards ---- */

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *out) {
    pthread_rwlock_rdlock(&session);
    nvmlReturn_t code = out ? driver_state() : INVALID_ARGUMENT;
    if (code == OK) *out = seen_count;
    pthread_rwlock_unlock(&session);
    return code;
}

static void slice_uuid(char out[48], const struct card *c, unsigned slice) {
    snprintf(out, 48, "MIG-%.8s-%04x%s", c->uuid + 4, slice, c->uuid + 17);
}

static void bus_id(char out[32], const struct card *c) {
    snprintf(out, 32, "00000000:%02X:00.0", (unsigned)c->pci_bus);
}

typedef int (*match_t)(const struct card *, unsigned slice, const char *text);

static int is_uuid(const struct card *c, unsigned slice, const char *text) {
    char uuid[48];
    if (slice == WHOLE) return strcmp(text, c->uuid) == 0;
    slice_uuid(uuid, c, slice);
    return strcmp(text, uuid) == 0;
}

static int is_bus_id(const struct card *c, unsigned slice, const char *text) {
    char id[32];
    bus_id(id, c);
    /* Callers write the domain with four or with eight digits. */
    return slice == WHOLE && (strcasecmp(text, id) == 0 || strcasecmp(text, id + 4) == 0);
}

static nvmlReturn_t find(match_t matches, const char *text, nvmlDevice_t *out) {
    pthread_rwlock_rdlock(&session);
    nvmlReturn_t code = text && out ? driver_state() : INVALID_ARGUMENT;
    unsigned count = code == OK ? seen_count : 0;
    if (code == OK) code = NOT_FOUND;
    for (unsigned i = 0; i < count; i++) {
        const struct card *c = &control->cards[seen[i]];
        unsigned slice = WHOLE;
        for (unsigned k = 0; k < c->mig_slices && slice == WHOLE; k++)
            if (matches(c, k, text)) slice = k;
        if (slice == WHOLE && !matches(c, WHOLE, text)) continue;
        code = c->lost || c->absent ? GPU_IS_LOST : OK;
        if (code == OK) *out = make_handle(seen[i], slice);
    }
    pthread_rwlock_unlock(&session);
    return code;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out) {
    return find(is_uuid, uuid, out);
}
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *id, nvmlDevice_t *out) {
    return find(is_bus_id, id, out);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *out) {
    pthread_rwlock_rdlock(&session);
    nvmlReturn_t code = out ? driver_state() : INVALID_ARGUMENT;
    if (code == OK && index >= seen_count) code = INVALID_ARGUMENT;
    if (code == OK) {
        const struct card *c = &control->cards[seen[index]];
        code = c->lost || c->absent ? GPU_IS_LOST : OK;
        if (code == OK) *out = make_handle(seen[index], WHOLE);
    }
    pthread_rwlock_unlock(&session);
    return code;
}

static unsigned index_of(unsigned slot) {
    unsigned index = 0;
    while (index < seen_count && seen[index] != slot) index++;
    return index;
}

GETTER(nvmlDeviceGetIndex, unsigned, 0, OK, ((void)c, index_of(call.slot)))
GETTER(nvmlDeviceGetMinorNumber, unsigned, 0, OK, ((void)c, call.slot))
GETTER(nvmlDeviceGetComputeMode, unsigned, 0, OK, c->compute_mode)
GETTER(nvmlDeviceGetPersistenceMode, unsigned, 0, OK, c->persistence)

#define TEXT(function, slice_allowed, fill)                                     \
    nvmlReturn_t function(nvmlDevice_t device, char *out, unsigned room) {      \
        struct call call;                                                       \
        char text[96];                                                          \
        if (!out) return INVALID_ARGUMENT;                                      \
        nvmlReturn_t code = enter(&call, device, slice_allowed);                \
        if (code != OK) return code;                                            \
        const struct card *c = call.card;                                       \
        fill;                                                                   \
        return leave(&call, put_text(out, room, text));                         \
    }

TEXT(nvmlDeviceGetName, 1,
     snprintf(text, sizeof text, call.slice == WHOLE ? "%s" : "%s MIG", c->name))
TEXT(nvmlDeviceGetSerial, 0, snprintf(text, sizeof text, "%s", c->serial))
TEXT(nvmlDeviceGetUUID, 1,
     if (call.slice == WHOLE) strcpy(text, c->uuid);
     else slice_uuid(text, c, call.slice))

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, pci_t *out) {
    struct call call;
    if (!out) return INVALID_ARGUMENT;
    nvmlReturn_t code = enter(&call, device, 0);
    if (code != OK) return code;
    memset(out, 0, sizeof *out);
    out->bus = (unsigned)call.card->pci_bus;
    bus_id(out->busId, call.card);
    memcpy(out->busIdLegacy, out->busId + 4, 13);
    return leave(&call, OK);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    struct call call;
    if (!major || !minor) return INVALID_ARGUMENT;
    nvmlReturn_t code = enter(&call, device, 1);
    if (code != OK) return code;
    *major = (int)call.card->capability / 10;
    *minor = (int)call.card->capability % 10;
    return leave(&call, OK);
}

/* ---- MIG ---- */

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *now, unsigned *pending) {
    struct call call;
    if (!now || !pending) return INVALID_ARGUMENT;
    nvmlReturn_t code = enter(&call, device, 0);
    if (code != OK) return code;
    if (!call.card->mig_capable) return leave(&call, NOT_SUPPORTED);
    *now = *pending = call.card->mig_slices > 0;
    return leave(&call, OK);
}

GETTER(nvmlDeviceGetMaxMigDeviceCount, unsigned, 0, OK, c->mig_capable ? MAX_SLICES : 0)
GETTER(nvmlDeviceIsMigDeviceHandle, unsigned, 1, OK, ((void)c, call.slice != WHOLE))

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index,
                                                 nvmlDevice_t *out) {
    struct call call;
    if (!out || index >= MAX_SLICES) return INVALID_ARGUMENT;
    nvmlReturn_t code = enter(&call, device, 0);
    if (code != OK) return code;
    if (!call.card->mig_capable) code = NOT_SUPPORTED;
    else if (index >= call.card->mig_slices) code = NOT_FOUND;
    else *out = make_handle(call.slot, index);
    return leave(&call, code);
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t device, nvmlDevice_t *out) {
    struct call call;
    if (!out) return INVALID_ARGUMENT;
    nvmlReturn_t code = enter(&call, device, 1);
    if (code != OK) return code;
    if (call.slice == WHOLE) code = INVALID_ARGUMENT;
    else *out = make_handle(call.slot, WHOLE);
    return leave(&call, code);
}

/* ---- events: not emulated ---- */

nvmlReturn_t nvmlEventSetCreate(void **set) {
    (void)set;
    return NOT_SUPPORTED;
}
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, void *set) {
    (void)device, (void)types, (void)set;
    return NOT_SUPPORTED;
}
nvmlReturn_t nvmlEventSetWait_v2(void *set, void *data, unsigned timeout_ms) {
    (void)set, (void)data, (void)timeout_ms;
    return NOT_SUPPORTED;
}
nvmlReturn_t nvmlEventSetFree(void *set) {
    (void)set;
    return NOT_SUPPORTED;
}
