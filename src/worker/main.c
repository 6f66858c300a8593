/*
 * pvol-worker: parses volume headers and derives keys, for one request, in a process of its own that has
 * nothing but the descriptors of that request. See worker.h for the protocol.
 *
 * Order matters: first no core files and no debugger (pv_process_harden), then everything that the libraries
 * want to open or look up once, then the sandbox, and only then the first byte of input. When the parent dies
 * the worker is killed at once; the order of header writes (format/luks2.c) makes that harmless.
 */
#include "base/channel.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "base/process.h"
#include "format/format.h"
#include "worker/worker_int.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#define CHANNEL_FD 3

static const struct worker_method methods[] = {
	{"format.probe", 1, worker_probe},
	{"format.info", 1, worker_info},
	{"format.create", 2, worker_create},
	{"format.unlock", 2, worker_unlock},
	{"format.key_add", 3, worker_key_add},
	{"format.key_change", 3, worker_key_change},
	{"format.key_remove", 1, worker_key_remove},
	{"format.backup", 2, worker_backup},
	{"format.restore", 2, worker_restore},
	{"format.erase", 1, worker_erase},
	{"worker.sandbox", 0, worker_sandbox},
};

/* What OpenSSL would do at its first use: without its configuration file, which the sandbox hides. */
static void warm_up(void)
{
	static const char *const hashes[] = {"sha1", "sha256", "sha384", "sha512"};
	EVP_KDF *kdf;

	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_CRYPTO_STRINGS, NULL);
	for (size_t i = 0; i < sizeof(hashes) / sizeof(hashes[0]); i++)
		EVP_MD_free(EVP_MD_fetch(NULL, hashes[i], NULL));
	kdf = EVP_KDF_fetch(NULL, "PBKDF2", NULL);
	EVP_KDF_free(kdf);
}

static int serve(struct worker_request *request, struct json_object **ret_result, struct pv_error *err)
{
	const char *name = pv_json_string(request->message.json, "method", "");

	request->params = pv_json_object(request->message.json, "params");
	request->result_fd = -1;
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (strcmp(methods[i].name, name))
			continue;
		if (request->message.nfds < methods[i].nfds)
			return pv_fail(err, -EPROTO, NULL, "protocol error: %s needs %zu descriptors", name,
				methods[i].nfds);
		return methods[i].run(request, ret_result, err);
	}
	return pv_fail(err, -ENOSYS, NULL, "protocol error: the worker has no such method");
}

static int answer(struct worker_request *request)
{
	pv_autojson struct json_object *result = NULL;
	struct pv_error why = {0};
	int64_t id = pv_json_int(request->message.json, "id", 0);
	int r;

	r = serve(request, &result, &why);
	if (r)
		return pv_channel_reply_error(request->channel, id, &why);
	if (!result)
		result = json_object_new_object();
	r = pv_channel_reply(request->channel, id, result, &request->result_fd, request->result_fd >= 0);
	if (request->result_fd >= 0)
		close(request->result_fd);
	return r;
}

int main(void)
{
	struct worker_request request = {0};
	struct pv_error err = {0};
	int r;

	r = pv_process_harden(&err);
	if (!r) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (fcntl(CHANNEL_FD, F_GETFD) < 0)
			r = pv_fail(&err, -EBADF, NULL, "this program is started by pvold, not by hand");
	}
	if (!r) {
		warm_up();
		pv_log_init("pvol-worker", -1, PV_LOG_WARNING);
		r = pv_process_sandbox(&request.sandbox, &err);
	}
	/* From here on input is read. A parent that died before prctl() shows as the channel's end. */
	if (!r)
		r = pv_channel_new(CHANNEL_FD, &request.channel, &err);
	if (!r) {
		r = pv_channel_receive(request.channel, -1, &request.message, &err);
		if (r == 1)
			r = answer(&request);
		pv_message_clear(&request.message);
	}
	pv_channel_free(request.channel);
	if (r < 0 && r != -ENOTCONN && r != -EPIPE)
		pv_log(PV_LOG_ERROR, "%s", err.message[0] ? err.message : pv_strerror(r));
	return r < 0;
}
