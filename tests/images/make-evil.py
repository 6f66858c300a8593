#!/usr/bin/env python3
"""Makes the evil LUKS2 headers in evil/: each differs from a sound one in what its name says.

Usage: make-evil.py [DIRECTORY]. Deterministic; Python's standard library only. Key slot areas are zeros.
"""
import base64, copy, hashlib, json, lzma, os, struct, sys

HDR = 16384
UUID = b"22222222-3333-4444-8555-666666666666"


def copy_bytes(text, seqid, secondary, hdr_size=HDR, area=None, alg=b"sha256"):
    area = HDR - 4096 if area is None else area
    offset = HDR if secondary else 0
    h = bytearray(4096)
    h[0:8] = (b"SKUL" if secondary else b"LUKS") + b"\xba\xbe\0\2"
    struct.pack_into(">QQ", h, 8, hdr_size, seqid)
    h[72:72 + len(alg)] = alg
    h[104:168] = bytes([1 + secondary]) * 64
    h[168:168 + len(UUID)] = UUID
    struct.pack_into(">Q", h, 256, offset)
    body = bytes(h) + text.ljust(area, b"\0")
    return body[:448] + hashlib.sha256(body).digest() + body[480:]


def image(text, size=0x60000, seqid=3, **kw):
    if not isinstance(text, bytes):
        text = json.dumps(text, separators=(",", ":")).encode()
    data = copy_bytes(text, seqid, 0, **kw) + copy_bytes(text, seqid, 1, **kw)
    return bytearray(data.ljust(size, b"\0")[:size])


def slot(offset=32768):
    return {"type": "luks2", "key_size": 32, "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
            "area": {"type": "raw", "offset": str(offset), "size": "131072", "encryption": "aes-xts-plain64",
                     "key_size": 32},
            "kdf": {"type": "pbkdf2", "hash": "sha256", "iterations": 1000,
                    "salt": base64.b64encode(b"s" * 32).decode()}}


SOUND = {
    "keyslots": {"0": slot(), "1": slot(32768 + 131072)},
    "tokens": {},
    "segments": {"0": {"type": "crypt", "offset": "16777216", "size": "dynamic", "iv_tweak": "0",
                       "encryption": "aes-xts-plain64", "sector_size": 512}},
    "digests": {"0": {"type": "pbkdf2", "keyslots": ["0", "1"], "segments": ["0"], "hash": "sha256",
                      "iterations": 1000, "salt": base64.b64encode(b"d" * 32).decode(),
                      "digest": base64.b64encode(b"x" * 32).decode()}},
    "config": {"json_size": str(HDR - 4096), "keyslots_size": "16744448"},
}

images = {}


def evil(name, *edits, **kw):
    """Each edit is (path, value); the value None removes, Ellipsis in the path appends."""
    tree = copy.deepcopy(SOUND)
    for path, value in edits:
        node = tree
        for key in path.split("/")[:-1]:
            node = node[key]
        last = path.split("/")[-1]
        if value is None:
            del node[last]
        else:
            node[last] = value
    images[name] = image(tree, **kw)


evil("sound")
area = "keyslots/0/area/"
evil("area-too-small", (area + "size", "126976"))
evil("area-too-large", (area + "size", "16748544"))
evil("area-outside", (area + "offset", "16777216"))
evil("area-in-header", (area + "offset", "16384"))
evil("area-overlap", ("keyslots/1/area/offset", str(32768 + 126976)))
evil("area-misaligned", (area + "offset", "32769"))
evil("area-negative", (area + "offset", "-32768"))
evil("area-wraps", (area + "offset", "18446744073709518848"))
evil("area-beyond-64-bits", (area + "size", "99999999999999999999999999"))
evil("area-hexadecimal", (area + "offset", "0x8000"))
evil("area-a-number", (area + "offset", 32768))
evil("area-key-huge", (area + "key_size", 4096))
evil("key-size-huge", ("keyslots/0/key_size", 1 << 40))
evil("key-size-zero", ("keyslots/0/key_size", 0))
evil("key-sizes-differ", ("keyslots/1/key_size", 16))
evil("stripes-one", ("keyslots/0/af/stripes", 1))
evil("stripes-huge", ("keyslots/0/af/stripes", 1 << 31))
evil("af-hash-unknown", ("keyslots/0/af/hash", "md5"))
evil("slot-32", ("keyslots/32", slot(32768 + 262144)))
evil("slot-not-number", ("keyslots/one", slot(32768 + 262144)))
evil("slot-leading-zero", ("keyslots/02", slot(32768 + 262144)))
evil("slot-is-list", ("keyslots/0", []))
evil("salt-not-base64", ("keyslots/0/kdf/salt", "####"))
evil("salt-huge", ("keyslots/0/kdf/salt", base64.b64encode(b"s" * 150).decode()))
evil("kdf-missing", ("keyslots/0/kdf", None))
evil("kdf-unknown", ("keyslots/0/kdf/type", "scrypt"))
absurd = {"type": "argon2id", "time": 4, "memory": 8 << 20, "cpus": 1,
          "salt": base64.b64encode(b"s" * 32).decode()}
evil("argon2-memory-absurd", ("keyslots/0/kdf", absurd), ("keyslots/1/kdf", absurd))
evil("argon2-time-absurd", ("keyslots/0/kdf", dict(absurd, memory=1 << 20, time=1 << 30)),
     ("keyslots/1/kdf", dict(absurd, memory=1 << 20, time=1 << 30)))
evil("pbkdf2-absurd", ("keyslots/0/kdf/iterations", (1 << 31) - 1), ("keyslots/1/kdf/iterations", (1 << 31) - 1))
evil("pbkdf2-few", ("keyslots/0/kdf/iterations", 1))
evil("digest-absurd", ("digests/0/iterations", (1 << 31) - 1))
evil("digest-missing", ("digests", {}))
evil("digest-no-segment", ("digests/0/segments", []))
evil("digest-dangling-slot", ("digests/0/keyslots", ["0", "7"]))
evil("digest-dangling-segment", ("digests/0/segments", ["0", "7"]))
evil("digest-short", ("digests/0/digest", base64.b64encode(b"x").decode()))
evil("digest-twice", ("digests/1", copy.deepcopy(SOUND["digests"]["0"])))
evil("token-dangling", ("tokens/0", {"type": "systemd-recovery", "keyslots": ["9"]}))
evil("token-no-type", ("tokens/0", {"keyslots": ["0"]}))
evil("segments-none", ("segments", {}))
evil("segments-two", ("segments/1", copy.deepcopy(SOUND["segments"]["0"])))
evil("segment-linear", ("segments/0/type", "linear"))
evil("segment-flag", ("segments/0/flags", ["in-reencryption"]))
evil("segment-integrity", ("segments/0/integrity", {"type": "hmac(sha256)"}))
evil("segment-overlaps-slots", ("segments/0/offset", "4194304"))
evil("segment-odd-sector", ("segments/0/sector_size", 513))
evil("segment-wraps", ("segments/0/size", "9223372036854775296"))
evil("segment-detached", ("segments/0/offset", "0"))
evil("requirement-unknown", ("config/requirements", {"mandatory": ["opal-\x1b[31m"]}))
evil("requirement-class-unknown", ("config/requirements", {"compulsory": ["x"]}))
evil("flag-unknown", ("config/flags", ["allow-discards", "invert-all-bits"]))
evil("keyslots-size-huge", ("config/keyslots_size", str(1 << 40)))
evil("json-size-wrong", ("config/json_size", "4096"))
evil("config-missing", ("config", None))
# What a re-encryption that was begun leaves: requirement, a slot of its own kind, three segments.
moving = copy.deepcopy(SOUND["segments"]["0"])
evil("reencryption", ("config/requirements", {"mandatory": ["online-reencrypt-v2"]}),
     ("keyslots/2", {"type": "reencrypt", "key_size": 1, "mode": "reencrypt", "direction": "forward",
                     "area": {"type": "checksum", "offset": "294912", "size": "4096", "hash": "sha256",
                              "sector_size": 512}}),
     ("segments/1", dict(moving, flags=["backup-previous"])), ("segments/2", dict(moving, flags=["backup-final"])))
evil("reencrypt-slot-alone", ("keyslots/2", {"type": "reencrypt", "key_size": 1}))
evil("seqid-exhausted", seqid=(1 << 64) - 1)
evil("truncated-in-slots", size=0x9000)
evil("truncated-in-copy", size=0x3000)

deep = b'{"keyslots":' + b"[" * 5000 + b"]" * 5000 + b"}"
images["json-deep"] = image(deep)
images["json-unterminated"] = image(b"{" + b" " * (HDR - 4097))
images["json-not-object"] = image(b"[1]")
images["json-cut"] = image(json.dumps(SOUND).encode()[:-40])
images["json-trailing"] = image(json.dumps(SOUND).encode() + b"\0hidden")
images["json-not-utf8"] = image(b'{"keyslots":"\xff\xfe"}')
images["header-size-odd"] = image(SOUND, hdr_size=0x5000)
images["header-size-huge"] = image(SOUND, hdr_size=1 << 62)
images["checksum-unknown"] = image(SOUND, alg=b"crc32c")
for name, offsets in (("damaged-primary", [300]), ("damaged-secondary", [HDR + 5000]), ("damaged-both", [4200, HDR + 449])):
    images[name] = image(SOUND)
    for at in offsets:
        images[name][at] ^= 0x40
images["overwritten-by-ext4"] = image(SOUND)
images["overwritten-by-ext4"][0:2048] = bytes(2048)
images["overwritten-by-ext4"][1024 + 56:1024 + 58] = b"\x53\xef"
images["overwritten-by-ext4"][1024 + 96] = 0x40

out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "evil")
os.makedirs(out, exist_ok=True)
for name, data in images.items():
    with open(os.path.join(out, name + ".img.xz"), "wb") as f:
        f.write(lzma.compress(bytes(data), preset=6))
