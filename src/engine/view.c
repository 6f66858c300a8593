/*
 * `pvol-engine --view DIR FILE`: no pool at all, only the decrypted container as one read-only file, for
 * programs that want to look at a closed volume. The container and the key come as one engine.attach on
 * descriptor 3; it ends when that connection does.
 */
#include "engine/engine_int.h"
#include "block/file.h"
#include "fs/view.h"
#include "volume/hello.h"

#include <errno.h>
#include <string.h>

struct view {
	struct pv_channel *channel;
	int64_t id;
};

static void ready(void *private)
{
	struct view *view = private;

	pv_channel_reply(view->channel, view->id, NULL, NULL, 0);
}

static int serve(struct view *view, struct pv_message *message, const char *dir, const char *file,
	struct pv_error *err)
{
	struct json_object *devices, *device, *params = pv_json_object(message->json, "params");
	struct pv_file_options options = {.read_only = true};
	pv_autosecret struct pv_secret *key = NULL;
	struct pv_bdev *below = NULL, *crypt = NULL;
	struct pv_segment segment;
	int r;

	view->id = pv_json_int(message->json, "id", 0);
	devices = params ? pv_json_array(params, "devices") : NULL;
	device = devices ? json_object_array_get_idx(devices, 0) : NULL;
	if (!json_object_is_type(device, json_type_object) || message->nfds != 2)
		return pv_fail(err, -EINVAL, NULL, "one device with container and key is needed");
	options.label = pv_json_string(device, "label", NULL);
	r = pv_segment_from_json(pv_json_object(device, "segment"), &segment, err);
	if (r >= 0)
		r = pv_secret_read(message->fds[1], 4096, &key, err);
	if (r >= 0)
		r = pv_file_open(pv_steal_fd(&message->fds[0]), &options, &below, err);
	if (r < 0)
		return r;
	r = pv_crypt_open(below, &segment, key, &crypt, err);
	if (r < 0) {
		pv_bdev_close(below);
		return r;
	}
	r = pv_view_serve(crypt, dir, file, pv_channel_fd(view->channel), ready, view, err);
	pv_bdev_close(crypt);
	return r;
}

int engine_view_main(const char *dir, const char *file)
{
	struct pv_message message = {0};
	struct pv_error err = {0};
	struct view view = {0};
	int r;

	r = pv_channel_new(3, &view.channel, &err);
	if (r >= 0)
		r = pv_hello(view.channel, NULL, 10000, NULL, &err);
	if (r >= 0)
		r = pv_channel_receive(view.channel, 60000, &message, &err);
	if (r <= 0)
		return 1;
	r = serve(&view, &message, dir, file, &err);
	if (r < 0)
		pv_channel_reply_error(view.channel, view.id, &err);
	pv_message_clear(&message);
	pv_channel_free(view.channel);
	return r < 0 ? 1 : 0;
}
