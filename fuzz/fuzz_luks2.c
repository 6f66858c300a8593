/*
 * LUKS2 headers: whatever the input says, probing, describing, unlocking with repair, changing keys and
 * backing up must end with an answer. Costs are capped so that a run takes milliseconds.
 *
 * An input that begins with '{' is the JSON text of an otherwise sound header. Anything else is the start of
 * a container; if its size is odd, the checksums of both copies are made right first, because mutations would
 * hardly ever get past them.
 */
#include "format/format.h"
#include "format/luks2_int.h"

#include "target.h"

#include <endian.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CONTAINER (1U << 20)

static const struct luks2_limits limits = {
	.pbkdf2_iterations = 2000, .argon2_memory = 64, .argon2_work = 512, .argon2_lanes = 2};

static void fix_checksum(uint8_t *container, size_t offset)
{
	uint8_t *copy = container + offset;
	uint64_t size;

	memcpy(&size, copy + 8, sizeof(size));
	size = be64toh(size);
	if (size < LUKS2_BIN_SIZE || size > CONTAINER - offset)
		return;
	memset(copy + 448, 0, 64);
	EVP_Digest(copy, size, copy + 448, NULL, EVP_sha256(), NULL);
}

static void put_header(uint8_t *container, const uint8_t *json, size_t size)
{
	for (unsigned which = 0; which < 2; which++) {
		uint8_t *copy = container + which * LUKS2_HDR_MIN;
		uint64_t hdr_size = htobe64(LUKS2_HDR_MIN), seqid = htobe64(3),
			 offset = htobe64(which * LUKS2_HDR_MIN);

		memcpy(copy, which ? "SKUL\xba\xbe\0\2" : "LUKS\xba\xbe\0\2", 8);
		memcpy(copy + 8, &hdr_size, 8);
		memcpy(copy + 16, &seqid, 8);
		memcpy(copy + 72, "sha256", 6);
		memcpy(copy + 168, "22222222-3333-4444-8555-666666666666", 36);
		memcpy(copy + 256, &offset, 8);
		memcpy(copy + LUKS2_BIN_SIZE, json, size);
		fix_checksum(container, which * LUKS2_HDR_MIN);
	}
}

static void fill(uint8_t *container, const uint8_t *data, size_t size)
{
	if (size && data[0] == '{') {
		put_header(container, data,
			size < LUKS2_HDR_MIN - LUKS2_BIN_SIZE ? size : LUKS2_HDR_MIN - LUKS2_BIN_SIZE);
		return;
	}
	memcpy(container, data, size < CONTAINER ? size : CONTAINER);
	if (size & 1) {
		fix_checksum(container, 0);
		fix_checksum(container, LUKS2_HDR_MIN);
	}
}

/* True if unlocking is as cheap as the limits say, so that the operations without limits may run. */
static bool cheap(int fd)
{
	luks2_auto struct luks2 *header = NULL;

	if (luks2_read(fd, &header, NULL))
		return false;
	for (int i = 0; i < LUKS2_MAX; i++) {
		const struct luks2_kdf digest = {
			.type = LUKS2_PBKDF2, .iterations = header->meta.digests[i].iterations};

		if (luks2_kdf_check(&header->meta.slots[i].kdf, &limits, NULL) ||
			luks2_kdf_check(&digest, &limits, NULL))
			return false;
	}
	return true;
}

static void exercise(int fd)
{
	pv_autosecret struct pv_secret *secret = NULL, *volume_key = NULL;
	struct pv_unlock_key key = {
		.kind = "passphrase", .pbkdf = {.type = PV_PBKDF_PBKDF2, .forced_iterations = 1000}};
	struct json_object *info = NULL;
	const struct pv_format_ops *ops;
	struct pv_segment segment;
	struct pv_error err = {0};
	int slot, backup;

	if (pv_secret_copy("key", 3, &secret, NULL))
		abort();
	key.secret = secret;
	if (pv_format_probe(fd, &ops, &err))
		return;
	if (!ops->info(fd, &info, &err))
		json_object_put(info);
	luks2_unlock_limited(fd, &key, -1, true, &limits, &slot, &segment, &volume_key, &err);
	backup = memfd_create("backup", MFD_CLOEXEC);
	if (!ops->backup(fd, backup, &err))
		ops->restore(fd, backup, true, &err);
	close(backup);
	ops->key_remove(fd, 0, false, &err);
	if (cheap(fd))
		ops->key_add(fd, &key, &key, &slot, &err);
	if (!ops->info(fd, &info, &err))
		json_object_put(info);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("container", MFD_CLOEXEC);
	uint8_t *container;

	if (fd < 0 || ftruncate(fd, CONTAINER))
		abort();
	container = mmap(NULL, CONTAINER, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (container == MAP_FAILED)
		abort();
	fill(container, data, size);
	munmap(container, CONTAINER);
	exercise(fd);
	close(fd);
	return 0;
}
