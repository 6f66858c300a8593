/*
 * pvol-worker: the short-lived, sandboxed process that parses headers and derives keys. This header is the
 * client side, used by the keeper (and by tests): each call starts a worker, passes descriptors, waits, reaps
 * it.
 *
 * Protocol: a struct pv_channel on descriptor 3; one request, progress lines, one answer, exit.
 *   method           descriptors                     params                          result
 *   format.probe     container                       -                               {"format"}
 *   format.info      container                       -                               see pv_format_ops.info
 *   format.create    container, key pipe per slot    {"format","cipher","key_size","sector_size","label",
 *                                                     "keys":[KEY]}          {"segment"} + volume key pipe
 *   format.unlock    container, key pipe             {"kind","slot":-1,"repair":bool}  {"slot","segment"} +
 * volume key pipe format.key_add / key_change   container, existing pipe, new pipe KEY and {"existing_kind"}
 * {"slot"} format.key_remove             container          {"slot","force"} format.backup / restore
 * container, file    {"force"} format.erase                  container          {"format"} to erase what is
 * not recognised any more, or {} worker.sandbox                -           -
 * {"mask","no_new_privs","landlock","seccomp","paths_open"} KEY is
 * {"kind":"passphrase|keyfile|recovery","pbkdf":{"type":"argon2id|pbkdf2","iter_time_ms","memory_kib",
 * "parallel","forced_iterations"}}, all optional, with the defaults of struct pv_pbkdf_params.
 * The container's descriptor is the keeper's own open file description (it carries the OFD lock).
 * Progress while deriving: {"phase":"deriving the key"}.
 */
#ifndef PV_WORKER_WORKER_H
#define PV_WORKER_WORKER_H

#include "base/channel.h"
#include "base/error.h"

/*
 * Runs one request in a fresh worker. `fds` are borrowed. Result object and descriptors as in
 * pv_channel_call(). A worker that crashes or is killed gives -EIO ("the worker died: signal N").
 */
int pv_worker_run(const char *method, struct json_object *params, const int *fds, size_t nfds,
	pv_progress_fn progress, void *private, struct json_object **ret_result, int *ret_fds,
	size_t *inout_nfds, struct pv_error *err);

#endif
