/*
 * Requests about the inside of an open volume: they go to its engine, found by the first part of the name.
 */
#include "daemon/keeper_int.h"

#include <errno.h>
#include <string.h>

/* Passes the request's parameters on and the answer back. */
static int forward(struct request *rq, const char *volume, struct pv_error *err)
{
	struct link_call call = {.method = rq->method, .params = rq->params};
	struct link *link;
	int r;

	r = volume_link(volume, &link, err);
	if (r < 0)
		return r;
	r = link_call(link, &call, err);
	if (r >= 0)
		rq->result = json_object_get(call.result);
	link_call_clear(&call);
	link_put(link);
	return r;
}

/* dataset.create, snapshot.create, snapshot.rollback, snapshot.destroy: "name" is VOLUME[/...][@...]. */
int dataset_request(struct request *rq, struct pv_error *err)
{
	char volume[PV_VOLUME_NAME_MAX + 1];
	const char *name;
	int r;

	r = request_string(rq, "name", &name, err);
	if (r >= 0)
		r = pv_volume_name_of(name, volume, err);
	return r < 0 ? r : forward(rq, volume, err);
}

/* dataset.list, snapshot.list */
int dataset_list(struct request *rq, struct pv_error *err)
{
	const char *volume;
	int r = request_string(rq, "volume", &volume, err);

	return r < 0 ? r : forward(rq, volume, err);
}

int pool_scrub(struct request *rq, struct pv_error *err)
{
	const char *volume;
	int r = request_string(rq, "name", &volume, err);

	return r < 0 ? r : forward(rq, volume, err);
}
