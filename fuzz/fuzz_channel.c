/*
 * The control protocol: whatever bytes a peer sends, in whatever pieces, receiving them ends with messages or
 * an error, and a call is answered or fails.
 */
#include "base/channel.h"
#include "base/json.h"

#include "target.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* A connected pair whose far end has sent `data` and closed. The buffer holds it all, so nothing blocks. */
static int feed(const uint8_t *data, size_t size)
{
	int pair[2], room = 4 << 20;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	for (size_t at = 0; at < size;) {
		/* Pieces of a size that the data choose. */
		size_t piece = 1 + (data[at] * 37U) % 4096;
		ssize_t n = send(pair[1], data + at, size - at < piece ? size - at : piece,
			MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n <= 0)
			break;
		at += (size_t)n;
	}
	shutdown(pair[1], SHUT_WR);
	/* The far end stays open for what the near end sends; its buffer takes more than one request. */
	if (dup2(pair[1], 100) < 0)
		abort();
	close(pair[1]);
	return pair[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json_object *result = NULL, *params = json_object_new_object();
	struct pv_channel *channel;
	struct pv_message message;
	struct pv_error err = {0};
	size_t nfds = 2;
	int fds[2];

	if (pv_channel_new(feed(data, size), &channel, &err))
		abort();
	while (pv_channel_receive(channel, 0, &message, &err) == 1) {
		pv_error_from_json(pv_json_object(message.json, "error"), &err);
		pv_json_u64(message.json, "id", 0);
		pv_message_clear(&message);
	}
	pv_channel_free(channel);
	close(100);

	if (pv_channel_new(feed(data, size), &channel, &err))
		abort();
	if (!pv_channel_call(channel, "m", params, NULL, 0, NULL, NULL, &result, fds, &nfds, &err))
		json_object_put(result);
	pv_channel_free(channel);
	close(100);
	json_object_put(params);
	return 0;
}
