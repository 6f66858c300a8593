/*
 * Private to the worker: its methods.
 */
#ifndef PV_WORKER_WORKER_INT_H
#define PV_WORKER_WORKER_INT_H

#include "base/channel.h"

struct worker_request {
	struct pv_channel *channel;
	struct pv_message message;
	struct json_object *params; /* borrowed from the message; may be NULL */
	unsigned sandbox;           /* enum pv_sandbox_mask */
	int result_fd;              /* a pipe that goes with the answer, or -1 */
};

struct worker_method {
	const char *name;
	size_t nfds; /* descriptors it needs at least */
	int (*run)(struct worker_request *request, struct json_object **ret_result, struct pv_error *err);
};

int worker_probe(struct worker_request *request, struct json_object **ret_result, struct pv_error *err);
int worker_info(struct worker_request *request, struct json_object **ret_result, struct pv_error *err);
int worker_create(struct worker_request *request, struct json_object **ret_result, struct pv_error *err);
int worker_unlock(struct worker_request *request, struct json_object **ret_result, struct pv_error *err);
int worker_key_add(struct worker_request *request, struct json_object **ret_result, struct pv_error *err);
int worker_key_change(struct worker_request *request, struct json_object **ret_result, struct pv_error *err);
int worker_key_remove(struct worker_request *request, struct json_object **ret_result, struct pv_error *err);
int worker_backup(struct worker_request *request, struct json_object **ret_result, struct pv_error *err);
int worker_restore(struct worker_request *request, struct json_object **ret_result, struct pv_error *err);
int worker_erase(struct worker_request *request, struct json_object **ret_result, struct pv_error *err);
int worker_sandbox(struct worker_request *request, struct json_object **ret_result, struct pv_error *err);

#endif
