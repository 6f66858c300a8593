/*
 * The LUKS2 header on disk: two copies of a binary part and a JSON text, then the key slots area, then the
 * data.
 *
 *   0                    primary copy: binary header (4096 bytes), JSON text up to hdr_size
 *   hdr_size             secondary copy, the same with another magic, salt and offset
 *   2 * hdr_size         key slots area, keyslots_size bytes
 *   segment offset       data
 *
 *   offset size  binary header, integers big-endian
 *        0    6  "LUKS" ba be in the primary, "SKUL" ba be in the secondary copy
 *        6    2  version, 2
 *        8    8  hdr_size: 16 KiB times a power of two up to 4 MiB
 *       16    8  seqid, one more with every change
 *       24   48  label
 *       72   32  name of the checksum's hash
 *      104   64  salt, random, another one in each copy and change
 *      168   40  UUID as text
 *      208   48  subsystem
 *      256    8  offset of this copy
 *      448   64  checksum over the binary header with these 64 bytes zeroed and the whole JSON area
 *
 * A copy counts when magic, version, size, offset and checksum are right: then some program wrote all of it.
 * Of two such copies the one with the higher seqid is in force (the primary, if equal, or if the UUIDs
 * differ: then the secondary is a leftover). Only that one's JSON is judged; there is no falling back to an
 * older copy because the newer one says what pvol does not understand. When the primary does not count, the
 * secondary is looked for at all offsets it can have.
 *
 * Why a crash at any byte is survivable: a change first makes sure that both copies are in order
 * (luks2_repair), then writes the primary, fsync, then the secondary, fsync. While the primary is torn its
 * checksum is wrong and the untouched secondary holds the old header; from the first fsync on the primary
 * holds the new one, and a torn secondary does not count. What a header refers to is on disk before it: key
 * slot areas are filled and synced before the header that names them is written, and wiped only when no
 * header in force needs them.
 */
#include "format/luks2_int.h"

#include "base/cleanup.h"
#include "format/format_int.h"

#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define OFF_HDR_SIZE 8
#define OFF_SEQID 16
#define OFF_LABEL 24
#define OFF_CHECKSUM_ALG 72
#define OFF_SALT 104
#define OFF_UUID 168
#define OFF_HDR_OFFSET 256
#define OFF_CHECKSUM 448
#define CHECKSUM_SIZE 64

static const uint8_t magics[2][8] = {"LUKS\xba\xbe\0\2", "SKUL\xba\xbe\0\2"};

static const char *const copy_names[2] = {"primary", "secondary"};

/* One copy as read: the whole of it, or NULL when it does not count. */
struct copy {
	uint8_t *data;
	uint64_t hdr_size;
	uint64_t seqid;
	int error; /* -errno of reading it, 0 otherwise */
};

static uint64_t get_be64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

static void put_be64(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof(v));
}

static bool valid_size(uint64_t size)
{
	return size >= LUKS2_HDR_MIN && size <= LUKS2_HDR_MAX && !(size & (size - 1));
}

/* The checksum that the copy in `data` ought to have, zero-padded. */
static int compute_checksum(const uint8_t *data, uint64_t hdr_size, uint8_t ret_sum[static CHECKSUM_SIZE])
{
	static const uint8_t zeros[CHECKSUM_SIZE];
	char name[33] = {0};
	EVP_MD_CTX *ctx;
	EVP_MD *md;
	int ok;

	memcpy(name, data + OFF_CHECKSUM_ALG, 32);
	if (!luks2_hash_size(name))
		return -ENOTSUP;
	md = EVP_MD_fetch(NULL, name, NULL);
	ctx = EVP_MD_CTX_new();
	memset(ret_sum, 0, CHECKSUM_SIZE);
	ok = md && ctx && EVP_DigestInit_ex(ctx, md, NULL) && EVP_DigestUpdate(ctx, data, OFF_CHECKSUM) &&
	     EVP_DigestUpdate(ctx, zeros, CHECKSUM_SIZE) &&
	     EVP_DigestUpdate(
		     ctx, data + OFF_CHECKSUM + CHECKSUM_SIZE, hdr_size - OFF_CHECKSUM - CHECKSUM_SIZE) &&
	     EVP_DigestFinal_ex(ctx, ret_sum, NULL);
	EVP_MD_CTX_free(ctx);
	EVP_MD_free(md);
	return ok ? 0 : -EIO;
}

/* Reads the copy at `offset`. copy->data stays NULL when it does not count; that is no error. */
static void read_copy(int fd, uint64_t offset, int which, struct copy *copy)
{
	pv_autofree uint8_t *bin = format_buffer(LUKS2_BIN_SIZE), *data = NULL;
	uint8_t sum[CHECKSUM_SIZE];
	uint64_t size;
	ssize_t n;

	if (!bin) {
		copy->error = -ENOMEM;
		return;
	}
	n = format_read(fd, bin, LUKS2_BIN_SIZE, offset);
	if (n < 0)
		copy->error = (int)n;
	if (n != LUKS2_BIN_SIZE || memcmp(bin, magics[which], 8))
		return;
	size = get_be64(bin + OFF_HDR_SIZE);
	if (!valid_size(size) || get_be64(bin + OFF_HDR_OFFSET) != offset || (which && offset != size))
		return;
	data = format_buffer(size);
	if (!data) {
		copy->error = -ENOMEM;
		return;
	}
	n = format_read(fd, data, size, offset);
	if (n < 0)
		copy->error = (int)n;
	if (n != (ssize_t)size || compute_checksum(data, size, sum) ||
		memcmp(data + OFF_CHECKSUM, sum, CHECKSUM_SIZE))
		return;
	copy->hdr_size = size;
	copy->seqid = get_be64(data + OFF_SEQID);
	copy->data = pv_steal_ptr(&data);
}

static void read_copies(int fd, struct copy copies[static 2])
{
	read_copy(fd, 0, 0, &copies[0]);
	if (copies[0].data) {
		read_copy(fd, copies[0].hdr_size, 1, &copies[1]);
		return;
	}
	for (uint64_t at = LUKS2_HDR_MIN; at <= LUKS2_HDR_MAX && !copies[1].data; at *= 2)
		read_copy(fd, at, 1, &copies[1]);
}

static void text_field(const uint8_t *field, size_t size, char *ret_text)
{
	char raw[64] = {0};

	memcpy(raw, field, size);
	format_printable(raw, ret_text, size + 1);
}

/* Fills the header from the copy in force. */
static int load(const struct copy *copy, int which, struct luks2 *header, struct pv_error *err)
{
	struct pv_error why = {0};
	int r;

	memcpy(header->bin, copy->data, LUKS2_BIN_SIZE);
	header->hdr_size = copy->hdr_size;
	header->seqid = copy->seqid;
	text_field(copy->data + OFF_LABEL, 48, header->label);
	text_field(copy->data + OFF_UUID, 40, header->uuid);
	r = luks2_parse_text((const char *)copy->data + LUKS2_BIN_SIZE, copy->hdr_size - LUKS2_BIN_SIZE,
		&header->json, &why);
	if (!r)
		r = luks2_parse(header->json, header->hdr_size, &header->meta, &why);
	if (r)
		pv_fail(err, r, NULL, "%s (%s copy)", why.message, copy_names[which]);
	return r;
}

static int no_copy(int fd, const struct copy copies[static 2], struct pv_error *err)
{
	const char *guess;
	bool foreign;

	if (copies[0].error && copies[1].error)
		return pv_fail(err, copies[0].error, NULL, "cannot read the header: %s",
			pv_strerror(copies[0].error));
	guess = format_sniff(fd, &foreign);
	if (foreign && strcmp(guess, "a LUKS2 volume"))
		pv_fail(err, -EUCLEAN, NULL,
			"both copies of the LUKS2 header are gone; the container now looks like %s", guess);
	else
		pv_fail(err, -EUCLEAN, NULL, "both copies of the LUKS2 header are damaged");
	pv_remedy(err, "restore the header from a backup: pvol header restore");
	return -EUCLEAN;
}

int luks2_read(int fd, struct luks2 **ret_header, struct pv_error *err)
{
	luks2_auto struct luks2 *header = calloc(1, sizeof(*header));
	struct copy copies[2] = {0};
	int r, force;

	if (!header)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	read_copies(fd, copies);
	if (copies[0].error == -ENOMEM || copies[1].error == -ENOMEM) {
		free(copies[0].data);
		free(copies[1].data);
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	}
	if (!copies[0].data && !copies[1].data)
		return no_copy(fd, copies, err);
	force = !copies[0].data;
	if (copies[0].data && copies[1].data) {
		if (memcmp(copies[0].data + OFF_UUID, copies[1].data + OFF_UUID, 40))
			header->copy[1] = LUKS2_COPY_DAMAGED;
		else if (copies[0].seqid != copies[1].seqid) {
			force = copies[1].seqid > copies[0].seqid;
			header->copy[!force] = LUKS2_COPY_OLD;
		}
	} else {
		header->copy[!force] = LUKS2_COPY_DAMAGED;
	}
	if (header->copy[0] == LUKS2_COPY_DAMAGED) {
		bool foreign;
		const char *guess = format_sniff(fd, &foreign);

		if (foreign && strcmp(guess, "a LUKS2 volume"))
			snprintf(header->foreign, sizeof(header->foreign), "%s", guess);
	}
	r = load(&copies[force], force, header, err);
	free(copies[0].data);
	free(copies[1].data);
	if (!r)
		*ret_header = pv_steal_ptr(&header);
	return r;
}

struct luks2 *luks2_free(struct luks2 *header)
{
	if (header)
		json_object_put(header->json);
	free(header);
	return NULL;
}

int luks2_look(int fd, char ret_uuid[static 41])
{
	pv_autofree uint8_t *bin = format_buffer(LUKS2_BIN_SIZE);
	uint64_t at = 0;

	while (bin && at <= LUKS2_HDR_MAX) {
		if (format_read(fd, bin, LUKS2_BIN_SIZE, at) == LUKS2_BIN_SIZE &&
			!memcmp(bin, magics[at != 0], 8)) {
			text_field(bin + OFF_UUID, 40, ret_uuid);
			return 1;
		}
		at = at ? at * 2 : LUKS2_HDR_MIN;
	}
	return 0;
}

/* Writes one copy of the header in memory, with its seqid, and syncs. */
static int write_copy(int fd, const struct luks2 *header, int which, struct pv_error *err)
{
	const char *text = json_object_to_json_string_ext(
		header->json, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	const uint64_t offset = which ? header->hdr_size : 0;
	pv_autofree uint8_t *data = format_buffer(header->hdr_size);
	size_t length = text ? strlen(text) : 0;
	int r;

	if (!text || !data)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	if (length >= header->hdr_size - LUKS2_BIN_SIZE) {
		pv_fail(err, -ENOSPC, NULL, "the header has no room for more key slots and tokens");
		pv_remedy(err, "remove a key that is no longer needed first");
		return -ENOSPC;
	}
	memcpy(data, header->bin, LUKS2_BIN_SIZE);
	memcpy(data, magics[which], 8);
	put_be64(data + OFF_HDR_SIZE, header->hdr_size);
	put_be64(data + OFF_SEQID, header->seqid);
	put_be64(data + OFF_HDR_OFFSET, offset);
	memcpy(data + LUKS2_BIN_SIZE, text, length);
	r = format_random(data + OFF_SALT, 64);
	if (!r)
		r = compute_checksum(data, header->hdr_size, data + OFF_CHECKSUM);
	if (!r)
		r = format_write(fd, data, header->hdr_size, offset);
	if (!r)
		r = format_sync(fd);
	return r ? pv_fail(err, r, NULL, "cannot write the header's %s copy: %s", copy_names[which],
			   pv_strerror(r))
		 : 0;
}

int luks2_repair(int fd, struct luks2 *header, struct pv_error *err)
{
	int r;

	if (header->foreign[0]) {
		pv_fail(err, -EUCLEAN, NULL,
			"the start of the container was overwritten and now looks like %s; the volume's "
			"header is left as it is",
			header->foreign);
		pv_remedy(err, "if the volume is what is wanted, restore its header from a backup: "
			       "pvol header restore --force");
		return -EUCLEAN;
	}
	for (int which = 0; which < 2; which++) {
		if (header->copy[which] == LUKS2_COPY_OK)
			continue;
		r = write_copy(fd, header, which, err);
		if (r)
			return r;
		header->copy[which] = LUKS2_COPY_OK;
	}
	return 0;
}

int luks2_write(int fd, struct luks2 *header, struct pv_error *err)
{
	int r;

	if (header->seqid >= UINT64_MAX - 1)
		return pv_fail(err, -EUCLEAN, NULL, "the header's sequence number is exhausted");
	header->seqid++;
	r = write_copy(fd, header, 0, err);
	return r ? r : write_copy(fd, header, 1, err);
}

int luks2_reparse(struct luks2 *header, struct pv_error *err)
{
	int r;

	r = luks2_parse(header->json, header->hdr_size, &header->meta, err);
	if (!r && header->meta.refused[0])
		return pv_fail(err, -ENOTSUP, NULL, "%s", header->meta.refused);
	return r;
}

int luks2_new_header(
	const char *label, struct json_object *json, struct luks2 **ret_header, struct pv_error *err)
{
	luks2_auto struct luks2 *header = calloc(1, sizeof(*header));
	uint8_t id[16];
	int r;

	if (!header) {
		json_object_put(json);
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	}
	header->json = json;
	header->hdr_size = LUKS2_HDR_MIN;
	r = format_random(id, sizeof(id));
	if (r)
		return pv_fail(err, r, NULL, "no random numbers: %s", pv_strerror(r));
	id[6] = (id[6] & 0x0f) | 0x40; /* RFC 4122: version 4, variant 1 */
	id[8] = (id[8] & 0x3f) | 0x80;
	snprintf(header->uuid, sizeof(header->uuid),
		"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", id[0], id[1], id[2],
		id[3], id[4], id[5], id[6], id[7], id[8], id[9], id[10], id[11], id[12], id[13], id[14],
		id[15]);
	snprintf(header->label, sizeof(header->label), "%s", label);
	memcpy(header->bin + OFF_UUID, header->uuid, strlen(header->uuid));
	memcpy(header->bin + OFF_LABEL, header->label,
		strlen(header->label) < 47 ? strlen(header->label) : 47);
	memcpy(header->bin + OFF_CHECKSUM_ALG, "sha256", 6);
	*ret_header = pv_steal_ptr(&header);
	return 0;
}
