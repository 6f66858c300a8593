/*
 * Exchange of {"hello":{...}} lines.
 */
#include "volume/hello.h"
#include "base/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int send_hello(struct pv_channel *channel, const char *libzpool, struct pv_error *err)
{
	pv_autojson struct json_object *line = json_object_new_object();
	struct json_object *hello = json_object_new_object();

	pv_json_add_int(hello, "protocol", PV_PROTOCOL_VERSION);
	pv_json_add_string(hello, "version", PV_VERSION);
	pv_json_add_string(hello, "libzpool", libzpool);
	json_object_object_add(line, "hello", hello);
	return pv_channel_send(channel, line, NULL, 0, err);
}

int pv_hello(struct pv_channel *channel, const char *libzpool, int timeout_ms, char **ret_version,
	struct pv_error *err)
{
	struct pv_message message;
	struct json_object *hello;
	char *version = NULL;
	int64_t protocol;
	int r;

	r = send_hello(channel, libzpool, err);
	if (r < 0)
		return r;
	r = pv_channel_receive(channel, timeout_ms, &message, err);
	if (r < 0)
		return r;
	if (r == 0)
		return pv_fail(err, -ETIMEDOUT, NULL, "the other side of the control socket does not answer");
	hello = pv_json_object(message.json, "hello");
	protocol = hello ? pv_json_int(hello, "protocol", 0) : 0;
	if (hello && ret_version)
		version = strdup(pv_json_string(hello, "version", ""));
	pv_message_clear(&message);
	if (protocol != PV_PROTOCOL_VERSION) {
		free(version);
		return pv_fail(err, -EPROTO, NULL,
			"the other side speaks version %d of the control protocol, this program version %d",
			(int)protocol, PV_PROTOCOL_VERSION);
	}
	if (ret_version)
		*ret_version = version;
	return 0;
}
